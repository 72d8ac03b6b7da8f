from __future__ import annotations

import json
from pathlib import Path

import pytest

from anonymix_keystore import KeyFileUnlock, Keystore
from anonymix_lab.bench.scale import LIMITS, Measured, plan, simulate
from anonymix_plugin.bulk import Ledger
from anonymix_plugin.cli import main

MEASURED = Measured(
    cpu_rate=10,
    gpu_rate=500,
    reading_rate=200,
    face_bytes=2**20,
    original_bytes=2**19,
    key_bytes=2**10,
    rotation_rate=10_000,
    driver_rate=1_000,
    renewal_rate=100,
)


def test_a_plan_follows_from_the_measured_figures() -> None:
    made = plan(8_640_000, MEASURED)
    assert made.cpu_days == pytest.approx(10)
    assert made.cpu_machines == pytest.approx(30)
    assert made.gpu_hours == pytest.approx(4.8)
    assert made.gpus == pytest.approx(0.6)
    assert made.readers == pytest.approx(40)
    assert made.rotation_hours == pytest.approx(0.24)
    assert made.keystore_gib == pytest.approx(8.24, abs=0.01)
    assert made.faces_tib == pytest.approx(8.24, abs=0.01)
    assert made.originals_tib == pytest.approx(4.12, abs=0.01)
    assert made.driver_hours == pytest.approx(2.4)
    assert made.renewal_hours == pytest.approx(24)


def test_calls_that_count_together_take_three_times_as_long() -> None:
    days = plan(86_400, MEASURED).back_ends
    for limit, each in zip(LIMITS, days, strict=True):
        assert each == pytest.approx((3 if limit.together else 1) / limit.calls_per_s)


def test_a_simulated_run_is_left_and_gone_on_with_and_loses_no_row(tmp_path: Path) -> None:
    first = simulate(tmp_path, 200, workers=4, rate=1, block=16, limit=60)
    rest = simulate(tmp_path, 200, workers=4, rate=1, block=16)
    assert first.items == first.done == 64
    assert (rest.items, rest.done) == (136, 200)
    assert rest.seconds > 136 / 4  # as long as four workers draw, though nobody waited for it
    with Ledger(tmp_path / "ledger", {"items": 200, "block": 16}) as ledger:
        assert ledger.summary(finished=False).failed == 200
    with Keystore.open(tmp_path / "scale.db", KeyFileUnlock(tmp_path / "scale.key")) as store:
        assert sum(1 for _ in store.subjects()) == 200


def test_more_workers_than_the_driver_feeds_stand_idle(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    few = simulate(tmp_path / "few", 128, workers=2, rate=0.1)
    many = simulate(tmp_path / "many", 128, workers=8, rate=1e9)
    assert few.workers_busy > 0.9
    assert many.workers_busy < 0.1
    assert many.rows_per_s > few.rows_per_s


def test_the_command_prints_a_table_its_sources_and_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scale.json"
    main(["measure", "scale", "--faces", "1000000", "--cpu-rate", "10", "--simulate", "64", "-o", str(out)])
    shown = capsys.readouterr().out
    assert "| faces | 1,000,000 |" in shown
    assert "| one machine with two cores, days | 1.16 |" in shown
    for limit in LIMITS:
        assert limit.source in shown
    content = json.loads(out.read_text())
    assert content["plans"][0]["cpu_days"] == pytest.approx(1.157, abs=0.001)
    assert content["simulated"]["done"] == 64


@pytest.mark.parametrize("through", ["workers", "renewal"])
def test_the_command_runs_the_real_driver_with_workers_that_sleep(through: str, tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = ["measure", "scale", "--simulate", "96", "--workers", "1", "--worker-rate", "400", "--through", through]
    assert main([*command, "--folder", str(tmp_path), "-o", str(out)]) == 0
    run = json.loads(out.read_text())["simulated"]
    assert run["done"] == 96
    assert 0 < run["rows_per_s"] <= 440
    assert run["driver_cpu_s"] <= run["seconds"]
    with Keystore.open(tmp_path / "scale.db", KeyFileUnlock(tmp_path / "scale.key")) as store:
        assert list(store.due(fingerprint="f" * 32)) == []
        assert len(list(store.enrolments())) == (96 if through == "renewal" else 0)
