"""Build the wheel, install it where nothing else is, and protect a photo there: `make test-wheel`.

The core must do without torch, ONNX, Jinja and whatever else only refining, measuring and adapters need. The
script installs the core with its pinned dependencies in an empty environment and protects one photo there, by
the command line and by the library. It prints how large the environment is and how long the import keeps the
processor busy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("h5py", "jinja2", "matplotlib", "onnx", "scipy", "sklearn", "torch")
IMPORT_SECONDS = 0.25
"""Of the processor, and the least of several: a busy machine takes longer for the same."""

_INSIDE = """
import importlib.util, json, subprocess, sys
from pathlib import Path

heavy = [name for name in {heavy!r} if importlib.util.find_spec(name)]
time_it = "import time; t = time.process_time(); import anonymix_plugin; print(time.process_time() - t)"
seconds = [
    float(subprocess.run([sys.executable, "-c", time_it], capture_output=True, text=True, check=True).stdout)
    for _ in range(7)
]
from anonymix_plugin import Anonymixer, MissingPackageError
with Anonymixer.open(sys.argv[1], passphrase=sys.argv[2]) as mixer:
    face = mixer.protect(sys.argv[3], subject="anybody")
    refused = ""
    try:
        Anonymixer(mixer.keystore, method="refine")
    except MissingPackageError as error:
        refused = str(error)
print(json.dumps(dict(
    heavy=heavy,
    seconds=min(seconds),
    shape=face.pixels.shape,
    refused=refused,
    loaded=sorted(name for name in {heavy!r} if name in sys.modules),
)))
"""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> int:
    """Run the check; returns 0 if all of it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, help="a photo with one face")
    parser.add_argument("--with-torch", action="store_true", help="install the extra [torch] as well, to compare")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", work, ROOT], check=True)
        wheel = next(work.glob("*.whl"))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", work / "env"], check=True)
        python = work / "env" / "bin" / "python"
        install = [*pip, "--python", python, "install", "--constraint", ROOT / "constraints.txt"]
        if given.with_torch:  # the pinned build by name first: an extra alone would take a larger one
            subprocess.run([*install, "torch"], check=True)
        subprocess.run([*install, f"{wheel}[torch]" if given.with_torch else wheel], check=True)
        environment = {
            "PATH": f"{work / 'env' / 'bin'}:/usr/bin:/bin",
            "HOME": os.environ.get("HOME", str(work)),
            "ANONYMIX_PASSPHRASE": "only for this test",
            "ANONYMIX_KEYSTORE": str(work / "keys.db"),
            **{key: os.environ[key] for key in ("ANONYMIX_HOME",) if key in os.environ},
        }

        def run(*command: object) -> str:
            done = subprocess.run(
                [str(word) for word in command],
                env=environment,
                cwd=work,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
            return done.stdout

        shutil.copy(given.photo, work / "photo.jpg")
        run("anonymix", "keys", "init")
        run("anonymix", "protect", "photo.jpg", "--subject", "anybody", "--enrol", "-o", "out")
        made = list((work / "out").glob("*.png"))
        seen = json.loads(
            run(
                python,
                "-c",
                _INSIDE.format(heavy=HEAVY),
                work / "keys.db",
                environment["ANONYMIX_PASSPHRASE"],
                "photo.jpg",
            )
        )
        mebibytes = size_of(work / "env") / 2**20
    _say(f"installed {mebibytes:.0f} MiB, wheel {wheel.name}")
    _say(f"import anonymix_plugin: {seen['seconds']:.3f} s of the processor (least of 7)")
    _say(f"without torch, the refine method says: {seen['refused']}")
    wrong = []
    if not made or seen["shape"] != [512, 512, 3]:
        wrong.append("no cancelable face was made")
    if seen["seconds"] > IMPORT_SECONDS:
        wrong.append(f"the import takes more than {IMPORT_SECONDS} s of the processor")
    if not given.with_torch:
        wrong += [f"{package} is installed" for package in seen["heavy"]]
        wrong += [f"{package} was imported" for package in seen["loaded"]]
        if "anonymix-plugin[torch]" not in seen["refused"]:
            wrong.append("the refine method does not name its extra")
    for line in wrong:
        _say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
