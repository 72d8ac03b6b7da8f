"""What the bench counts and times, and that it says what it left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anonymix_lab.bench import BenchResult, BenchSettings, run_bench
from anonymix_lab.bench.baselines import blurred, pixelated
from anonymix_lab.bench.clock import Clock
from anonymix_lab.bench.cold import ColdStart, cold_start
from anonymix_lab.bench.counts import count, generator_counts, onnx_counts
from anonymix_lab.bench.drawn import draw_photo
from anonymix_plugin.cli import main
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.generator import PublishedWeights, read_published
from anonymix_plugin.models import locate

NEEDED = ("mobilestylegan", "yunet", "arcface-mbf", "sface")


@pytest.fixture(scope="module")
def weights(model: Callable[[str], Path]) -> PublishedWeights:
    folder = model("mobilestylegan").parent
    return read_published(folder / "MappingNetwork.xml", folder / "SynthesisNetwork.xml")


@pytest.fixture(scope="module")
def photo(portraits: Path) -> Path:
    return portraits / "001_neutral.jpg"


# --- counting ---------------------------------------------------------------------------------------


def test_convolutions_and_products_are_counted_by_the_book() -> None:
    import openvino
    from openvino import opset13 as op

    given = op.parameter([1, 4, 10, 10], np.float32)
    plain = op.convolution(given, op.constant(np.ones((8, 4, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
    each = op.constant(np.ones((8, 1, 1, 3, 3), np.float32))
    depthwise = op.group_convolution(plain, each, [2, 2], [1, 1], [1, 1], [1, 1])
    activated = op.relu(depthwise)
    row = op.reshape(activated, op.constant(np.array([1, 200])), False)
    result = op.matmul(row, op.constant(np.ones((200, 5), np.float32)), False, False)
    counted = count(openvino.Model([result], [given], "m"))
    products = 2 * 4 * 9 * 800 + 2 * 9 * 200 + 2 * 200 * 5
    assert counted.convolutions == products
    assert counted.operations == products + 200
    assert counted.parameters >= 4 * (8 * 4 * 9 + 8 * 9 + 200 * 5)


def test_the_generator_is_counted_as_its_weights_say(weights: PublishedWeights) -> None:
    synthesis = weights.synthesis
    expected = 0
    for conv in (synthesis.stem, *(c for block in synthesis.blocks for c in (block.conv1, block.conv2))):
        area = conv.noise.size
        expected += 2 * conv.weight.size * area
        expected += 0 if conv.depthwise is None else 2 * conv.depthwise.size * area
        expected += 2 * conv.modulation.weight.size
    expected += sum(2 * block.up.weight.size for block in synthesis.blocks)
    expected += 2 * synthesis.head_modulation.weight.size + 2 * 3 * 64 * 512**2
    counted = generator_counts(weights, 512)
    assert counted.convolutions == expected
    assert counted.convolutions < counted.operations < 1.1 * counted.convolutions


def test_a_recogniser_is_counted(model: Callable[[str], Path]) -> None:
    counted = onnx_counts(model("arcface-mbf"), (1, 3, 112, 112))
    assert 0.3e9 < counted.convolutions < 1.5e9  # MobileFaceNet's authors say .44 billion products


# --- timing -----------------------------------------------------------------------------------------


def test_percentiles_are_of_the_runs() -> None:
    clock = Clock()
    for number in range(1, 101):
        clock.add(number / 1000, 0.5)
    times = clock.times()
    assert times.runs == 100
    assert (times.p50, times.p95, times.p99) == pytest.approx((0.0505, 0.09505, 0.09901))
    assert (times.least, times.cpu) == (0.001, 0.5)
    assert clock.run(lambda: 7) == 7
    assert len(clock.wall) == 101


def test_alternatives_hide_detail() -> None:
    face = np.random.Generator(np.random.Philox(1)).integers(0, 255, (512, 512, 3), np.uint8)
    assert len(np.unique(pixelated(face).reshape(-1, 3), axis=0)) <= 256
    assert blurred(face).std() < face.std() / 20


@pytest.fixture(scope="module")
def cold(photo: Path, model: Callable[[str], Path]) -> ColdStart:
    for name in NEEDED:
        model(name)
    return cold_start(photo, policy="none", engine="auto", faces=2)


def test_a_fresh_process_makes_its_first_face_without_torch(cold: ColdStart) -> None:
    assert not cold.torch
    assert cold.total == pytest.approx(cold.interpreter + cold.imports + cold.opening + cold.first)
    assert min(cold.interpreter, cold.imports, cold.opening, cold.first) > 0
    assert cold.cpu > 0


def test_a_fresh_process_stays_small(cold: ColdStart) -> None:
    assert cold.peak_first <= cold.peak_many < 1e9


def test_a_fresh_process_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(AnonymixError, match="made no face"):
        cold_start(tmp_path / "nobody.jpg", policy="none", engine="auto", faces=1)


@pytest.fixture(scope="module")
def result(photo: Path, model: Callable[[str], Path]) -> BenchResult:
    for name in NEEDED:
        model(name)
    quick = BenchSettings(repeats=3, batches=(2,), refine_steps=0, cold_starts=0)
    return run_bench([photo, photo.with_name("002_neutral.jpg")], quick)


def test_everything_is_measured_in_one_run(result: BenchResult) -> None:
    assert {"decode", "detect", "align", "embed", "mix", "generate"} == set(result.stages)
    assert result.total.runs == result.generator.runs == 3
    # The median of three pairs' ratios lies between these whatever else the machine does; a pass alone may by
    # chance take longer than the face beside it.
    total, alone = result.total, result.generator
    assert total.least / alone.p50 <= result.ratio <= total.p50 / alone.least
    assert result.total.p50 > result.stages["generate"].p50
    assert {"blur", "pixelation", "recogniser alone"} == set(result.baselines)
    assert result.photos == 2
    assert result.throughput[0].batch == 2
    assert min(result.throughput[0].one_by_one, result.throughput[0].streamed) > 0
    assert result.refine is None
    assert not result.engines


def test_a_floor_is_what_the_peak_allows_set_against_what_was_measured(result: BenchResult) -> None:
    took = {"generate": result.generator, "embed": result.stages["embed"], "detect": result.stages["detect"]}
    assert took.keys() == result.floors.keys()
    for name, floor in result.floors.items():
        assert floor.at_peak == pytest.approx(floor.counts.operations / result.peak.convolution)
        assert floor.share == pytest.approx(floor.at_peak / took[name].p50)


def test_the_result_is_json(result: BenchResult) -> None:
    content = json.loads(json.dumps(result.as_json()))
    assert content["total"]["p50"] == result.total.p50
    assert content["floors"]["generate"]["counts"]["operations"] > 13e9


def test_the_command_prints_tables_and_writes_json(
    result: BenchResult, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, photo: Path, capsys
) -> None:
    asked: list[BenchSettings] = []

    def measured(photos: list[Path], settings: BenchSettings, progress: object) -> BenchResult:
        assert photos == [photo]
        asked.append(settings)
        return result

    monkeypatch.setattr("anonymix_lab.bench.run_bench", measured)
    output = tmp_path / "new" / "bench.json"
    command = ["bench", "--photo", str(photo), "--repeats", "5", "--batches", "2,8", "-o", str(output)]
    assert main(command) == 0
    assert asked == [replace(BenchSettings(), repeats=5, batches=(2, 8))]
    shown = capsys.readouterr().out
    for words in ("total / generator", "pixelation", "share of peak", "as a stream"):
        assert words in shown
    assert json.loads(output.read_text())["ratio"] == result.ratio


@pytest.mark.parametrize("batches", ["0", "1,x", "-1"])
def test_batch_sizes_that_are_none_are_refused(batches: str, capsys) -> None:
    assert main(["bench", f"--batches={batches}"]) == 2
    assert "--batches" in capsys.readouterr().err


def test_a_photo_is_drawn_for_those_who_bring_none(tmp_path: Path, model: Callable[[str], Path]) -> None:
    from anonymix_plugin.faces import YuNet
    from anonymix_plugin.images import decode_photo

    model("mobilestylegan")
    model("yunet")
    assert YuNet(locate("yunet")).detect(decode_photo(draw_photo(tmp_path / "drawn.jpg")))
