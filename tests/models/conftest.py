"""A package index of our own with small wheels, and a home folder that is empty."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from anonymix_plugin import registry
from anonymix_plugin.models import ModelEntry, WeightFile, Wheel, _pip


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class ToyIndex:
    """Makes wheels, serves them to the real pip, and registers what they hold."""

    folder: Path
    home: Path
    patch: pytest.MonkeyPatch
    downloads: list[str] = field(default_factory=list)

    def wheel(self, package: str, members: dict[str, bytes]) -> Wheel:
        info = f"{package}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Python: <3\n"
        content = {
            **members,
            f"{info}/METADATA": metadata.encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: me\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(
            f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},"
            f"{len(data)}\n"
            for name, data in content.items()
        )
        path = self.folder / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**content, f"{info}/RECORD": record.encode()}.items():
                archive.writestr(name, data)
        served = path.read_bytes()
        return Wheel(package=package, version="1.0", sha256=sha256(served), size=len(served))

    def register(self, name: str, wheel: Wheel, files: dict[str, bytes]) -> ModelEntry:
        entry = ModelEntry(
            name=name,
            role="toy",
            group="optional",
            wheel=wheel,
            files=tuple(
                WeightFile(member=f"toy/{file}", name=file, sha256=sha256(data), size=len(data))
                for file, data in files.items()
            ),
            licence="MIT",
            restrictions="Only for toys.",
            source="none",
        )
        self.patch.setitem(registry._ENTRIES, name, entry)
        return entry

    def add(self, name: str, files: dict[str, bytes], **others: bytes) -> ModelEntry:
        """A wheel with these files and its entry, all in order."""
        package = f"{name}pkg"
        members = {f"toy/{file}": data for file, data in files.items()}
        return self.register(name, self.wheel(package, members | others), files)

    def placed(self) -> dict[str, bytes]:
        """Every file under the home folder but the lock, by its path."""
        return {
            str(path.relative_to(self.home)): path.read_bytes()
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyIndex:
    folder, home = tmp_path / "index", tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("ANONYMIX_HOME", str(home))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    toys = ToyIndex(folder, home, monkeypatch)
    run = _pip._run

    def counted(command, advance):
        toys.downloads.append(command[-1])
        return run(command, advance)

    monkeypatch.setattr(_pip, "_run", counted)
    return toys
