"""What is public is exported, documented and used; what is private stays in its package."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "anonymix_keystore": ROOT / "keystore" / "anonymix_keystore",
    "anonymix_plugin": ROOT / "anonymix_plugin",
    "anonymix_adapters": ROOT / "adapters" / "anonymix_adapters",
    "anonymix_lab": ROOT / "lab" / "anonymix_lab",
}


def modules() -> Iterator[tuple[str, Path]]:
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(part for part in parts if part != "__init__"), path


def private_imports(name: str, path: Path) -> Iterator[str]:
    """Imports of a private module or name that does not belong to the importing module's own package."""
    own = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(tuple(PACKAGES)):
            continue
        for alias in node.names:
            words = [*str(node.module).split("."), alias.name]
            for place, word in enumerate(words):
                dunder = word.startswith("__") and word.endswith("__")
                if word.startswith("_") and not dunder and own[:place] != words[:place]:
                    yield f"{name}:{node.lineno} imports {'.'.join(words)}"


def test_no_package_imports_what_is_private_in_another() -> None:
    found = [line for name, path in modules() for line in private_imports(name, path)]
    assert not found, "\n".join(found)


def test_the_check_sees_a_private_import(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("from anonymix_plugin.images._exif import anything\n")
    assert list(private_imports("anonymix_lab.module", path))
    assert not list(private_imports("anonymix_plugin.images.other", path))


@pytest.mark.parametrize("name", ["anonymix_keystore", "anonymix_plugin", "anonymix_adapters"])
def test_what_a_package_exports_is_there_and_documented(name: str) -> None:
    package = importlib.import_module(name)
    assert len(set(package.__all__)) == len(package.__all__)
    for exported in package.__all__:
        value = getattr(package, exported)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{exported} has no docstring"
            assert not value.__name__.startswith("_")


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_every_exported_name_of_every_package_exists(name: str) -> None:
    for found in pkgutil.walk_packages([str(PACKAGES[name])], f"{name}."):
        if found.ispkg:
            package = importlib.import_module(found.name)
            for exported in getattr(package, "__all__", ()):
                assert hasattr(package, exported), f"{found.name}.{exported}"
