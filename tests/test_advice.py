"""Whatever an error advises exists: options, commands, arguments, variables, methods and extras."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from anonymix_plugin.cli import app
from anonymix_plugin.cli.lazy import LazyGroup

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "anonymix_plugin": ROOT,
    "anonymix_adapters": ROOT / "adapters",
    "anonymix_keystore": ROOT / "keystore",
}
# Arguments of DeepFace's and of datetime's, and what SQLite is told.
OTHERS = {"detector_backend", "color_face", "tzinfo", "user_version"}


@dataclass(frozen=True)
class Advice:
    """One `fix=` as it stands in the source; what is filled in at run time reads {}."""

    place: str
    text: str


@cache
def trees() -> tuple[tuple[str, Path, ast.Module], ...]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((folder / package).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return tuple(found)


def texts(node: ast.AST, constants: dict[str, str]) -> Iterator[str]:
    """The texts that an expression may give."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = []
        for value in node.values:
            inner = value.value if isinstance(value, ast.FormattedValue) else value
            parts.append(next(texts(inner, constants), "{}"))
        yield "".join(parts)
    elif isinstance(node, ast.Name):
        if node.id in constants:
            yield constants[node.id]
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, constants)
        yield from texts(node.orelse, constants)
    elif isinstance(node, ast.BinOp):
        left, right = texts(node.left, constants), texts(node.right, constants)
        yield next(left, "{}") + next(right, "{}")


@cache
def all_constants() -> dict[str, dict[str, str]]:
    """Texts by the names that modules have for them."""
    found: dict[str, dict[str, str]] = {}
    for name, _, tree in trees():
        module = importlib.import_module(name) if "_rehearsal" not in name and "__main__" not in name else None
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        found[name] = {
            key: value for key in names if module is not None and isinstance(value := getattr(module, key, None), str)
        }
    return found


@cache
def advice() -> tuple[Advice, ...]:
    found = []
    for name, path, tree in trees():
        constants = all_constants()[name]
        local = {  # a text that is put together just before it is handed over
            target.id: next(texts(node.value, constants), "{}")
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "fix":
                place = f"{path.relative_to(ROOT)}:{node.value.lineno}"
                found += [Advice(place, text) for text in texts(node.value, {**local, **constants})]
    return tuple(found)


@cache
def commands() -> dict[str, Any]:
    """All commands by the words that call them."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        yield words, command
        if isinstance(command, LazyGroup):
            below = {name: entry.load(name) for name, entry in command.available().items()}
        else:
            below = getattr(command, "commands", {})
        for name, one in below.items():
            yield from walk(one, f"{words} {name}")

    return dict(walk(get_command(app), "anonymix"))


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@cache
def parameters() -> frozenset[str]:
    """All names of parameters and fields that the packages define."""
    found = set()
    for _, _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = node.args
                found |= {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return frozenset(found)


@cache
def read_variables() -> frozenset[str]:
    """All texts in the code that are no advice: a variable that is read stands among them."""
    found = set()
    for _, _, tree in trees():
        told = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.keyword) and node.arg in {"fix", "help"}
            for inner in ast.walk(node.value)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                found.add(node.value)
    return frozenset(found)


@cache
def exports() -> dict[str, ModuleType]:
    return {name: importlib.import_module(name) for name in PACKAGES}


def missing(one: Advice) -> list[str]:
    """What a piece of advice names and the program has not."""
    looked = (_commands_and_options, _arguments, _variables, _members, _extras, _modules)
    return [what for look in looked for what in look(one.text)]


def _commands_and_options(text: str) -> Iterator[str]:
    meant = list(commands().values())  # an option belongs to the command that was named last, or to any
    for words, option in re.findall(r"\banonymix((?: [a-z][a-z-]+){1,3})|(?<![\w-])(--[a-z][a-z-]+)", text):
        if option:
            if not any(option in options_of(command) for command in meant):
                yield f"the option {option}"
            continue
        found = "anonymix"
        for part in words.split():
            if not hasattr(commands()[found], "commands"):
                break  # what follows is an argument
            found = f"{found} {part}"
            if found not in commands():
                yield f"the command {found}"
                return
        meant = [commands()[found]]


def _arguments(text: str) -> Iterator[str]:
    if "pip install" not in text:
        for name in re.findall(r"(?<![\w.}-])([a-z_][a-z0-9_]+)=(?=[A-Z\"'\w.({])", text):
            if name not in parameters() | OTHERS:
                yield f"the argument {name}="


def _variables(text: str) -> Iterator[str]:
    for variable in re.findall(r"\b(?:ANONYMIX|VAULT|AWS)_[A-Z_]+\b", text):
        if variable not in read_variables():
            yield f"the variable {variable}"


@cache
def members() -> frozenset[tuple[str, str]]:
    """Methods and fields of all classes in the packages, each with its class."""
    found = set()
    for _, _, tree in trees():
        for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add((owner.name, node.name))
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found.add((owner.name, node.target.id))
    return frozenset(found)


def _members(text: str) -> Iterator[str]:
    for owner, member in re.findall(r"\b([A-Z][A-Za-z]+)\.([a-z_]+)\b", text):
        inherited = any(hasattr(getattr(module, owner, None), member) for module in exports().values())
        if (owner, member) not in members() and not inherited:
            yield f"{owner}.{member}"


def _extras(text: str) -> Iterator[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"anonymix-plugin\[([a-z0-9-]+)\]", text):
        if extra not in extras:
            yield f"the extra {extra}"


def _modules(text: str) -> Iterator[str]:
    for module in re.findall(r"\bpython -m (anonymix[\w.]+)", text):
        if importlib.util.find_spec(module) is None:
            yield f"the module {module}"


def test_whatever_an_error_advises_exists() -> None:
    assert len(advice()) > 300
    wrong = [f"{one.place}: {what} is not there: {one.text!r}" for one in advice() for what in missing(one)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("say --no-such-option", "option"),
        ("run: anonymix keys rotate --accept-most", "option"),
        ("run: anonymix keys no-such-command", "command"),
        ("run: anonymix nothing", "command"),
        ("open with no_such_argument=True", "argument"),
        ("set ANONYMIX_NO_SUCH_THING", "variable"),
        ("call Keystore.no_such_method", "Keystore"),
        ("pip install 'anonymix-plugin[no-such-extra]'", "extra"),
        ("python -m anonymix_adapters.nothing", "module"),
    ],
)
def test_advice_that_can_not_be_followed_is_noticed(text: str, what: str) -> None:
    assert any(what in found for found in missing(Advice("here", text)))


@pytest.mark.parametrize(
    "text",
    [
        "run: anonymix keys rotate alice --accept-clock",
        "open with accept_clock=True (on the command line: --accept-clock)",
        "set ANONYMIX_KEYFILE",
        "call Keystore.tie_anchor",
        "pip install 'anonymix-plugin[keyring]'",
    ],
)
def test_advice_that_can_be_followed_passes(text: str) -> None:
    assert missing(Advice("here", text)) == []
