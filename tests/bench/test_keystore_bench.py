from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonymix_lab.bench import keystore as _bench
from anonymix_plugin.cli import main


def test_the_bench_prints_every_figure_with_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "measure",
            "keystore",
            "--subjects",
            "1000",
            "-o",
            str(tmp_path / "b.json"),
            "--folder",
            str(tmp_path),
        ]
    )
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "b.json").read_text())
    assert set(_bench.TARGETS) < set(figures)
    assert {"raw_read_p50_us", "raw_keys_per_s", "raw_with_cryptography_keys_per_cpu_s"} < set(figures)
    assert figures["rotate_to_raw_s"] == pytest.approx(figures["rotate_keys_per_s"] / figures["raw_keys_per_s"])
    assert figures["file_after_rotation_mib"] > figures["file_mib"]
    assert figures["subjects"] == 1000
    for name in figures:
        assert name in shown
    assert [file.name for file in tmp_path.iterdir()] == ["b.json"]


def test_a_missed_target_is_said() -> None:
    assert _bench.verdict("open_s", 0.5).endswith("met")
    assert _bench.verdict("open_s", 1.5).endswith("MISSED")
    assert _bench.verdict("rotate_keys_per_s", 9_999).endswith("MISSED")
    assert _bench.verdict("file_mib", 1) == ""


def test_memory_is_nought_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Path) -> str:
        raise FileNotFoundError

    assert _bench.memory_mib() > 1
    monkeypatch.setattr(Path, "read_text", missing)
    assert _bench.memory_mib() == 0
