"""Whatever is given to a command as a photo, nothing of it is printed: all commands, all such parameters."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from leaks import QUERY, Search

from anonymix_keystore import Keystore
from anonymix_plugin.cli import _all_commands

_USUAL = {"adapter": "crops", "subject": "alice", "protocol": "lfw"}


def commands() -> Iterator[tuple[list[str], Any]]:
    """All commands that there are, with the words that they are called by."""

    def walk(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        below = getattr(command, "commands", None) or {}
        if not below:
            yield words, command
        for word, found in below.items():
            yield from walk([*words, word], found)

    for word, lazy in _all_commands().items():
        yield from walk([word], lazy.load(word))


def takes_photos(parameter: Any) -> bool:
    """By what its help says: a path, of photos or of a collection of them."""
    words = f"{parameter.name} {parameter.metavar} {getattr(parameter, 'help', '')}".lower()
    return "Path" in str(parameter.type_descriptor) and ("photo" in words or parameter.name in {"data", "lfw"})


DOORS = [(words, it) for words, command in commands() for it in command.params if takes_photos(it)]


def call(words: list[str], taking: Any, value: str) -> list[str]:
    """A command line with a value in one parameter, and something usual in all others that it needs."""
    command = {tuple(found): it for found, it in commands()}[tuple(words)]
    arguments, options = [], []
    for it in command.params:
        if it.name == taking.name:
            given = value
        elif it.required or it.name == "subject" or (it.param_type_name == "argument" and it.name in "ab"):
            given = _USUAL.get(it.name, "somewhere")
        else:
            continue
        if it.param_type_name == "argument":
            arguments.append(given)
        else:
            options += [it.opts[0], given]
    switches = ["--json"] if any("--json" in it.opts for it in command.params) else []
    return [*words, *options, *switches, "--", *arguments]


def test_there_are_such_commands() -> None:
    assert {" ".join(words) for words, _ in DOORS} >= {"demo", "protect", "verify", "drill"}


def doors() -> Iterator[Any]:
    """The same as parameters; commands that load much before they look at a photo wait for the long tests."""
    for words, it in DOORS:
        slow = [pytest.mark.long] if words[0] in {"bench", "measure", "train"} else []
        yield pytest.param(words, it, id=f"{' '.join(words)} {it.name}", marks=slow)


@pytest.mark.parametrize(("words", "taking"), list(doors()))
def test_commands_print_nothing_of_photos(
    words: list[str],
    taking: Any,
    weights: None,
    store: Keystore,
    run: Any,
    one: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = one.read_bytes()
    text, search = base64.b64encode(photo).decode(), Search(photo)
    for value in (text, text[:300], f"s3://bucket.example/alice.jpg{QUERY}", f"bucket.example/a.jpg{QUERY}"):
        ended = run(*call(words, taking, value))
        assert ended.code not in {0, 70}, ended
        assert ended.out + ended.err
        assert not search.found(ended.out + ended.err), (ended.out + ended.err)[:500]


@pytest.mark.parametrize("before", [[], ["keys"], ["verify", "a", "b"], ["protect", "--size"], ["bench"]])
def test_mistyped_commands_print_nothing_of_photos(before: list[str], run: Any, one: Path) -> None:
    photo = one.read_bytes()
    for value in (base64.b64encode(photo).decode(), f"https://alice@bucket.example/alice.jpg{QUERY}"):
        for json in ([], ["--json"]):
            ended = run(*before, value, *json)
            assert ended.code == 2
            assert not Search(photo).found(ended.out + ended.err), (ended.out + ended.err)[:500]


@pytest.mark.parametrize(
    "options",
    [
        ["--passphrase-fd", "9" * 20],
        ["--version", "9" * 25],
        ["--max-faces", "9" * 25],
        ["--max-faces", "0"],
        ["--max-pixels", "-1"],
        ["--min-quality", "nan"],
        ["--scope", ""],
        ["--subject", "caf\udce9"],
        ["--mixer-weights", "."],
        ["--generator", "."],
        ["--generator", "/dev/null"],
        ["--keystore", "."],
        ["--output", "/dev/null/somewhere"],
    ],
    ids=" ".join,
)
def test_odd_options_are_told_and_are_no_bug(
    options: list[str], weights: None, store: Keystore, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "caf\udce9.jpg").touch()
    photos = [tmp_path / "empty.jpg", tmp_path / "caf\udce9.jpg", "/dev/zero", "/dev/null", tmp_path / "none"]
    ended = run("protect", "-s", "alice", "-o", tmp_path / "out", *options, "--json", *photos)
    assert ended.code not in {0, 70}, ended
