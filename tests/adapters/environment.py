"""Fills the environment of `make test-adapters`: python tests/adapters/environment.py FOLDER REQUIREMENTS.

The environment sees the packages of the one that runs this, and adds its own, a line of the requirements at a
time.
A line that can't be installed is named and passed over: the tests that need it are skipped with the reason.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def main(folder: Path, requirements: Path) -> None:
    python = folder / "bin" / "python"
    place = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", place], check=True, capture_output=True, text=True).stdout.strip()
    ours = sysconfig.get_path("purelib")
    Path(own, "project.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    for line in requirements.read_text().splitlines():
        if line and not line.startswith("#"):
            install = [*pip, *line.split()]
            if all(subprocess.run(install, check=False).returncode for _ in range(2)):  # a registry may fail once
                sys.stderr.write(f"{line.split()[0]} can't be installed here: its tests will be skipped\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
