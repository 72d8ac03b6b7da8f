"""The script for a machine with a GPU, rehearsed on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anonymix_lab.gpu import (
    STEPS,
    Carried,
    Context,
    GpuSettings,
    genuine_pairs,
    needed_packages,
    needed_weights,
    run_steps,
)
from anonymix_lab.gpu.engine import _beside
from anonymix_lab.gpu.faces import in_parts, mixed_codes
from anonymix_plugin.cli import app, main
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.generator import load_generator
from anonymix_plugin.mixer.weights import load_mixer_weights

PEOPLE = Path(__file__).parents[1] / "people"


def codes(count: int, seed: int = 1, dims: int = 32) -> np.ndarray:
    drawn = np.random.Generator(np.random.Philox(seed)).standard_normal((count, dims))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def carried() -> Carried:
    return Carried(
        london=codes(4),
        london_who=np.array([0, 0, 1, 1]),
        seen={"sface": codes(4, 2, 128)},
        pairs={"view1": np.stack([codes(3, 3), codes(3, 4)])},
        street=codes(12, 5),
        street_who=np.repeat(np.arange(4), 3),
    )


def test_what_is_carried_is_read_as_it_was_written_and_holds_no_photo(tmp_path: Path) -> None:
    carried().save(tmp_path / "carried.npz")
    read = Carried.read(tmp_path / "carried.npz")
    np.testing.assert_array_equal(read.pairs["view1"], carried().pairs["view1"])
    np.testing.assert_array_equal(read.seen["sface"], carried().seen["sface"])
    np.testing.assert_array_equal(read.street_who, carried().street_who)
    with np.load(tmp_path / "carried.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != np.uint8 for name in file.files)


def test_a_file_that_carries_something_else_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", numbers=np.zeros(3))
    with pytest.raises(UsageError, match="--prepare"):
        Carried.read(tmp_path / "other.npz")


def test_the_pairs_to_carry_are_those_of_the_data_set(shared_data: Path) -> None:
    pairs = genuine_pairs(shared_data / "lfw")
    assert {name: len(listed) for name, listed in pairs.items()} == {"view1": 1600, "folds6-10": 1500}
    for listed in pairs.values():
        for one, other in (listed[0], listed[-1]):
            assert one != other
            assert one.is_file()
            assert other.is_file()
            assert one.parent == other.parent  # the folder of a person


def test_a_step_that_fails_is_told_and_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(context: Context) -> dict[str, object]:
        raise RuntimeError("no kernel image is available")

    def sound(context: Context) -> dict[str, object]:
        assert context.left > 0
        return {"faces": 3}

    monkeypatch.setattr("anonymix_lab.gpu.plan.STEPS", {"engine": (broken, 0.5, 1), "stream": (sound, 0.5, 1)})
    told: list[str] = []
    results = run_steps(
        GpuSettings(device="cpu", minutes=1, steps=("engine", "stream")), carried(), tmp_path, told.append
    )
    assert [result.state for result in results] == ["failed", "done"]
    saved = json.loads((tmp_path / "engine.json").read_text())
    assert saved["error"] == "RuntimeError: no kernel image is available"
    assert "Traceback" in (tmp_path / "engine" / "error.txt").read_text()
    assert json.loads((tmp_path / "stream.json").read_text())["result"] == {"faces": 3}
    assert any("no kernel image" in line for line in told)


def test_a_step_is_left_out_where_too_little_time_is_left(tmp_path: Path) -> None:
    settings = GpuSettings(device="cpu", minutes=0.05, steps=("tune",))
    (result,) = run_steps(settings, carried(), tmp_path, lambda _: None)
    assert result.state == "left out"
    assert "40 are needed" in result.error


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        (GpuSettings(steps=("polish",)), "engine"),
        (GpuSettings(variants=("polished",)), "as before"),
        (GpuSettings(presets=("polished",)), "fast"),
    ],
)
def test_an_unknown_name_is_refused_before_anything_is_done(tmp_path: Path, settings: GpuSettings, known: str) -> None:
    with pytest.raises(UsageError, match=f"polish.*known: {known}"):
        run_steps(settings, carried(), tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (GpuSettings(), "no such GPU"),
        (GpuSettings(device="cuda:99"), "no such GPU"),
        (GpuSettings(device="tpu"), "no such GPU"),
        (GpuSettings(device="cpu", start=Path("nowhere.safetensors")), "nowhere"),
        (GpuSettings(device="cpu", photos=Path("nowhere")), "nowhere: there are no photos"),
        (GpuSettings(device="cpu", variants=("third teacher",)), "make teacher"),
    ],
)
def test_what_a_later_step_would_miss_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: GpuSettings, told: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("anonymix_lab.training.teachers.FACERES", tmp_path / "faceres.json")
    with pytest.raises(AnonymixError, match=told):
        run_steps(settings, carried(), tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", ["engine:abc", "engine:nan", "engine:-5", "engine:", "engine:inf"])
def test_a_limit_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: str) -> None:
    carried().save(tmp_path / "carried.npz")
    assert main(["measure", "gpu", "--carried", str(tmp_path / "carried.npz"), "--steps", steps]) == 2
    assert "--steps" in capsys.readouterr().err


def test_decisions_that_differ_are_kept_with_their_cosines() -> None:
    here = np.array([[1, 0], [0.6, 0.8]], np.float32)
    found = _beside(here, np.array([[1, 0], [0.8, 0.6]], np.float32), threshold=0.7)
    assert found["decisions that differ"] == 1
    np.testing.assert_allclose(found["their cosines, and the CPU's"], [[0.6, 0.8]], atol=1e-6)
    assert found["cosine, least"] == pytest.approx(0.96)
    assert _beside(here, here, threshold=0.7)["their cosines, and the CPU's"] == []


def test_the_list_names_every_file_of_weights_and_every_package() -> None:
    listed = CliRunner().invoke(app, ["measure", "gpu", "--list"])
    assert listed.exit_code == 0
    for file in needed_weights():
        assert f"{file.path}  {file.size:,} bytes" in listed.output
    assert {package.name for package in needed_packages()} >= {"torch", "onnx", "cryptography"}


def test_codes_are_mixed_as_the_library_mixes_them() -> None:
    weights, generator = load_mixer_weights(), load_generator()
    mixed = mixed_codes(generator, weights, codes(3), [1, 1, 2])
    assert mixed.shape == (3, 23, 512)
    again = mixed_codes(generator, weights, codes(3), [1, 2, 2])
    np.testing.assert_array_equal(mixed[[0, 2]], again[[0, 2]])
    assert not np.array_equal(mixed[1], again[1])


def test_parts_cover_everything_once() -> None:
    assert [(part.start, part.stop) for part in in_parts(5, 2)] == [(0, 2), (2, 4), (4, 5)]


def test_streams_are_rehearsed(tmp_path: Path) -> None:
    settings = GpuSettings(device="cpu", minutes=1, steps=("stream",), rehearsal=True, photos=PEOPLE)
    (result,) = run_steps(settings, carried(), tmp_path, lambda _: None)
    assert result.state == "done", result.error
    assert result.result["stream"]["photos"] == 4
    assert result.result["stream"]["errors"] == 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own compiler
def test_all_steps_are_rehearsed(tmp_path: Path) -> None:
    settings = GpuSettings(device="cpu", minutes=20, steps=tuple(STEPS), rehearsal=True, photos=PEOPLE)
    results = run_steps(settings, carried(), tmp_path, lambda _: None)
    assert {result.name: result.error for result in results} == dict.fromkeys(STEPS, "")
    shown = {result.name: result.result for result in results}
    engine, compiled, tune = shown["engine"], shown["compiled"], shown["tune"]
    assert engine["bytes depend on the batch"] is False
    assert compiled["bytes depend on the batch"] is False
    assert compiled["kernels"] > 1
    assert compiled["greatest difference of a pixel, of 255"] < 0.01
    assert compiled["faces a second"]["1"]["with transfers"] > 0
    assert (tmp_path / "tune" / "best.safetensors").exists()
    known = json.loads((tmp_path / "tune" / "figures.json").read_text())
    assert known.keys() == tune.keys() - {"best"}
    assert tune["best"]["view1"]["sface"]["one key"]["d'"] > -5
    assert (tmp_path / "small" / "small.safetensors").exists()
    assert (tmp_path / "refine" / "presets.jpg").exists()
