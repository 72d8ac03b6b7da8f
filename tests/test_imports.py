"""The arrows run one way: adapters -> plugin -> keystore; and the keystore needs no torch and no numpy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()


def test_layers_are_kept() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_keystore_works_where_torch_numpy_and_the_plugin_are_missing() -> None:
    code = (
        "import sys;"
        "missing = ['torch', 'numpy', 'cv2', 'anonymix_plugin', 'anonymix_adapters'];"
        "sys.modules.update(dict.fromkeys(missing));"
        "import anonymix_keystore; print(anonymix_keystore.Keystore.__name__)"
    )
    assert run(code) == "Keystore"


def test_the_package_itself_is_imported_without_torch() -> None:
    assert run("import anonymix_plugin, sys; print('torch' in sys.modules)") == "False"


def test_every_exported_name_is_there() -> None:
    code = (
        "import anonymix_plugin as a;"
        "wrong = [n for n in a.__all__ if getattr(a, n).__name__ != n];"
        "print(wrong, a.__all__ == sorted(a.__all__))"
    )
    assert run(code) == "[] True"


def test_no_module_is_called_utils() -> None:
    assert not [*ROOT.glob("anonymix_plugin/**/util*.py"), *ROOT.glob("keystore/**/util*.py")]


def test_no_test_imports_from_a_conftest_of_which_there_are_several() -> None:
    says = re.compile(r"^(from|import) conftest\b", re.MULTILINE)
    assert not [path for path in ROOT.glob("tests/**/*.py") if says.search(path.read_text(encoding="utf-8"))]


def test_errors_and_keys_load_no_database_and_every_name_of_the_keystore_is_there() -> None:
    code = (
        "import sys, anonymix_keystore as k;"
        "k.KeystoreError, k.SubjectKey;"
        "print([n for n in ('sqlite_utils', 'cryptography') if n in sys.modules],"
        " [n for n in k.__all__ if not hasattr(k, n)], dir(k) == sorted(k.__all__), hasattr(k, 'nothing'))"
    )
    assert run(code) == "[] [] True False"


def test_opening_a_mixer_loads_only_what_it_needs() -> None:
    needless = ("pydantic", "sqlite_utils", "http.client", "importlib.metadata", "PIL.TiffImagePlugin", "openvino")
    code = f"import sys, anonymix_plugin.anonymixer; print([n for n in {needless!r} if n in sys.modules])"
    assert run(code) == "[]"
