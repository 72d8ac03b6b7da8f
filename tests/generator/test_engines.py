"""Every engine draws the reference's faces, and its own bytes again and again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.errors import UsageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import (
    ArrayGenerator,
    Generator,
    MobileStyleGan,
    OpenVinoGenerator,
    PublishedWeights,
    TorchGenerator,
    _load,
    load_generator,
    pictures_of,
    read_published,
    styles_of,
)
from anonymix_plugin.generator.openvino_bfloat import BfloatGenerator, has_bfloat16
from anonymix_plugin.generator.openvino_graph import STRIPS, WHOLE, Strips, synthesis_graph
from anonymix_plugin.inference import Content, _kept
from anonymix_plugin.models import content_of_model, locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import CancelableFace, Floats, Photo, Pixels
from anonymix_plugin.verification import Verifier

SIZE = 512


@pytest.fixture(scope="module")
def weights(model: Callable[[str], Path]) -> PublishedWeights:
    folder = model("mobilestylegan").parent
    return read_published(folder / "MappingNetwork.xml", folder / "SynthesisNetwork.xml")


@pytest.fixture(scope="module")
def reference(weights: PublishedWeights) -> MobileStyleGan:
    return MobileStyleGan(weights)


@pytest.fixture(scope="module")
def engine(weights: PublishedWeights) -> OpenVinoGenerator:
    return OpenVinoGenerator(weights)


@pytest.fixture(scope="module")
def codes(weights: PublishedWeights) -> Floats:
    """Three codes whose layers all differ, so that a mix-up of layers shows."""
    noise = np.random.Generator(np.random.Philox(11)).standard_normal((3 * 23, 512), np.float32)
    styles = weights.mapping.apply(noise).reshape(3, 23, 512)
    return np.ascontiguousarray(0.75 * styles[:, :1] + 0.25 * styles)


@pytest.fixture(scope="module")
def expected(reference: MobileStyleGan, codes: Floats) -> Floats:
    return reference.draw(codes, SIZE)


def embedded(pictures: Floats, like: Floats, name: str) -> Floats:
    """Embeddings of drawn faces, cut out where a detector finds those of `like`.

    The codes here are no real faces', and on a doubtful one the least difference of a pixel may make a
    detector choose another of two boxes. Real ones are tested with the detector, further below.
    """
    detector, recogniser = YuNet(locate("yunet")), load_recogniser(name)
    rows = []
    for picture, other in zip(pictures, like, strict=True):
        found = detector.detect(Photo(as_pixels(other), "<drawn>"))[0]
        face = replace(found, photo=Photo(as_pixels(picture), "<drawn>"))
        rows.append(recogniser.embed(recogniser.crop(face)[None])[0])
    return np.stack(rows)


def as_pixels(picture: Floats) -> Pixels:
    pixels = np.rint((picture.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(pixels)


def cosines(a: Floats, b: Floats) -> Floats:
    return (a * b).sum(axis=1)


# --- OpenVINO ---------------------------------------------------------------------------------------


def test_openvino_draws_what_the_reference_draws(engine: OpenVinoGenerator, codes: Floats, expected: Floats) -> None:
    drawn = engine.draw(codes, SIZE)
    assert isinstance(engine, Generator)
    assert isinstance(engine, ArrayGenerator)
    assert expected.std() > 0.1
    assert np.abs(drawn - expected).max() < 1e-3
    assert np.abs(expected[0] - expected[1]).max() > 0.5  # so that drawing another face would be seen


def test_weights_in_files_are_read_once_for_each_size_and_not_where_it_was_compiled_before(
    engine: OpenVinoGenerator, codes: Floats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def watched(name: str, file: str) -> Content:
        found = content_of_model(name, file)
        return replace(found, read=lambda: [read.append(file), found.read()][1])

    def opened() -> OpenVinoGenerator:
        monkeypatch.setattr(_kept, "_mapped", {})  # as in another process
        made = load_generator("openvino")
        assert isinstance(made, OpenVinoGenerator)
        return made

    (tmp_path / "models").symlink_to(locate("yunet").parents[1])
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path))
    monkeypatch.setattr(_load, "content_of_model", watched)
    first = opened()
    mapping, synthesis = (
        ["MappingNetwork.xml", "MappingNetwork.bin"],
        ["SynthesisNetwork.xml", "SynthesisNetwork.bin"],
    )
    assert read == mapping + synthesis
    first.prepare(1024)
    assert read == mapping + synthesis + synthesis
    read.clear()
    second = opened()
    assert read == mapping
    drawn = [made.draw(codes[:1], SIZE) for made in (engine, first, second)]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])
    assert second.weights_hash() == engine.weights_hash()
    assert np.array_equal(second.map_arrays(codes[0, :1]), engine.map_arrays(codes[0, :1]))
    assert read == mapping


# --- bfloat16 ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bfloat(weights: PublishedWeights) -> BfloatGenerator:
    if not has_bfloat16():
        pytest.skip("needs a processor that computes in bfloat16")
    return BfloatGenerator(weights)


def test_bfloat16_draws_the_same_faces_again_and_again(
    bfloat: BfloatGenerator, engine: OpenVinoGenerator, codes: Floats
) -> None:
    drawn, precise = bfloat.draw(codes, SIZE), engine.draw(codes, SIZE)
    assert bfloat.engine == "openvino-bf16" != engine.engine
    for name in ("arcface-mbf", "sface"):
        alike = cosines(embedded(drawn, precise, name), embedded(precise, precise, name))
        assert 0.999 <= alike.min() < 1  # not the same bytes
    assert np.array_equal(bfloat.draw(codes[::-1], SIZE)[::-1], drawn)
    assert np.abs(bfloat.draw(codes[:1], 1024) - engine.draw(codes[:1], 1024)).mean() < 0.01


def test_without_bfloat16_the_engine_is_refused(weights: PublishedWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    monkeypatch.setattr(_load, "_published", lambda: weights)
    with pytest.raises(UsageError, match="bfloat16"):
        load_generator("openvino-bf16")
    with pytest.raises(UsageError, match="large generator alone"):
        load_generator("openvino-bf16", name="small")


def test_openvino_draws_1024_px_too(engine: OpenVinoGenerator, reference: MobileStyleGan, codes: Floats) -> None:
    assert np.abs(engine.draw(codes[:1], 1024) - reference.draw(codes[:1], 1024)).max() < 1e-3


@pytest.mark.parametrize("name", ["arcface-mbf", "sface", "facenet"])
def test_recognisers_see_the_same_face_on_both_engines(
    engine: OpenVinoGenerator, codes: Floats, expected: Floats, name: str, model: Callable[[str], Path]
) -> None:
    model(name)
    assert (
        cosines(embedded(engine.draw(codes, SIZE), expected, name), embedded(expected, expected, name)).min() >= 0.999
    )


def test_bytes_depend_neither_on_neighbours_nor_on_threads_nor_on_the_request(
    engine: OpenVinoGenerator, weights: PublishedWeights, codes: Floats
) -> None:
    whole = engine.draw(codes, SIZE)
    assert np.array_equal(engine.draw(codes[2:], SIZE)[0], whole[2])
    alone = OpenVinoGenerator(weights, threads=1)
    assert np.array_equal(alone.draw(codes[:1], SIZE), whole[:1])
    # Layers in between another code's: memory is handed from one use to the next.
    assert np.array_equal(alone.draw(codes[1:2], SIZE), whole[1:2])


@pytest.mark.parametrize("strips", [WHOLE, Strips(6, 4, inner=4), Strips(3, 16), Strips(4, 2, inner=2)])
def test_strips_leave_no_seam(
    engine: OpenVinoGenerator, weights: PublishedWeights, codes: Floats, strips: Strips
) -> None:
    import openvino

    graph = synthesis_graph(weights.synthesis, SIZE, strips)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(graph.model, "CPU", options).create_infer_request()
    for index, values in enumerate(graph.fixed, 1):
        request.set_input_tensor(index, openvino.Tensor(values))
    drawn = request.infer({0: codes[:1]})[0]
    assert strips != STRIPS
    assert np.array_equal(drawn, engine.draw(codes[:1], SIZE))


def test_faces_are_drawn_in_float32_whatever_the_processor_prefers(weights: PublishedWeights) -> None:
    """Without a hint OpenVINO 2026.4.1 computes in bfloat16 on processors that have it."""
    import openvino

    made = OpenVinoGenerator(weights)
    made.prepare(SIZE)
    with made._requests[SIZE].lent() as request:
        assert request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_noise_maps_are_not_baked_into_the_compiled_graph(weights: PublishedWeights) -> None:
    """As constants they would make 225 MB out of 33 MB, to be read again for each face."""
    import openvino

    graph = synthesis_graph(weights.synthesis, SIZE)
    compiled = openvino.Core().compile_model(graph.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    exported = compiled.export_model()
    content = exported.getvalue() if hasattr(exported, "getvalue") else bytes(exported)
    assert len(content) < 60e6


def test_the_engine_is_no_part_of_the_fingerprint(engine: OpenVinoGenerator, reference: MobileStyleGan) -> None:
    assert engine.weights_hash() == reference.weights_hash()
    assert engine.engine != reference.engine


def test_drawing_needs_no_torch(model: Callable[[str], Path]) -> None:
    model("mobilestylegan")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from anonymix_plugin.generator import load_generator\n"
        "made = load_generator()\n"
        "style = made.map_arrays(np.ones((1, 512), np.float32))\n"
        "print(made.draw(np.repeat(style[:, None], 23, axis=1), 512).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 3, 512, 512)", done.stderr


def test_engines_make_the_same_decisions_on_real_photos(portraits: Path, model: Callable[[str], Path]) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface", "facenet"):
        model(name)
    photos = [portraits / f"{person:03}_{look}.jpg" for person in (1, 2, 3) for look in ("neutral", "smiling")]
    faces: dict[str, list[CancelableFace]] = {}
    for engine in ("openvino", "torch"):
        with Anonymixer(SeededKeys(1), engine=engine) as mixer:  # type: ignore[arg-type]
            faces[engine] = [mixer.protect(photo, scope="gate") for photo in photos]
            assert {face.engine for face in faces[engine]} == {engine}
    assert faces["openvino"][0].fingerprint == faces["torch"][0].fingerprint
    for matcher in ("facenet", "sface"):
        verifier = Verifier(matcher, "fmr-0.1%")
        fast, slow = (np.stack([verifier.embed(face) for face in made]) for made in faces.values())
        assert cosines(fast, slow).min() >= 0.999
        limit = verifier.threshold.value
        assert np.array_equal(fast @ fast.T >= limit, slow @ slow.T >= limit)
        assert (fast[::2] * fast[1::2]).sum(axis=1).min() >= limit  # some are accepted
        assert (fast @ fast.T).min() < limit  # and some are not


# --- codes ------------------------------------------------------------------------------------------


def test_codes_are_mapped_the_same_on_every_engine(engine: OpenVinoGenerator, reference: MobileStyleGan) -> None:
    z = np.random.Generator(np.random.Philox(3)).standard_normal((4, 512), np.float32)
    mapped = styles_of(engine, z)
    assert np.array_equal(mapped, styles_of(reference, z))
    assert np.abs(mapped - reference.map(torch.from_numpy(z)).numpy()).max() < 1e-4
    assert np.array_equal(mapped[1:2], styles_of(engine, z[1:2]))


def test_a_code_is_mapped_to_the_committed_bytes(weights: PublishedWeights) -> None:
    """It goes into every face under a key; if it changes, so do all faces, and FORMAT_VERSION must."""
    style = weights.mapping.apply(np.linspace(-2, 2, 512, dtype=np.float32)[None])
    found = hashlib.sha256(style.astype("<f4").tobytes()).hexdigest()
    assert found == "1171d29e68a07430365c316f75e3fd2eab32125841d5c7cf2399847c7e6ba4ea"


@pytest.mark.parametrize("shape", [(1, 22, 512), (1, 23, 511), (23, 512)])
def test_codes_of_another_shape_are_refused(engine: OpenVinoGenerator, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="23, 512"):
        engine.draw(np.zeros(shape, np.float32), SIZE)


def test_sizes_that_are_not_drawn_are_refused(engine: OpenVinoGenerator, codes: Floats) -> None:
    with pytest.raises(UsageError, match="512, 1024"):
        engine.draw(codes, 300)


# --- choosing ---------------------------------------------------------------------------------------


def test_where_openvino_can_not_draw_the_reference_does(
    model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model("mobilestylegan")

    def broken(*_: object) -> None:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(OpenVinoGenerator, "_compile", broken)
    assert isinstance(load_generator("auto"), MobileStyleGan)
    with pytest.raises(UsageError, match="no such instruction"):
        load_generator("openvino")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="steam"):
        load_generator("steam")  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_named(model: Callable[[str], Path]) -> None:
    model("mobilestylegan")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="no GPU"):
        load_generator("cuda")


def test_any_generator_of_tensors_can_be_used_with_arrays() -> None:
    class Tensors:
        name, z_dim, w_dim, layers, sizes = "tensors", 2, 2, _load, (4,)

        def map(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * z

        def synthesise(self, w_plus: torch.Tensor, size: int) -> torch.Tensor:
            return w_plus.mean() * torch.ones(len(w_plus), 3, size, size)

        def weights_hash(self) -> str:
            return ""

    z = np.ones((1, 2), np.float32)
    assert np.array_equal(styles_of(Tensors(), z), 2 * z)  # type: ignore[arg-type]
    assert np.array_equal(pictures_of(Tensors(), z[None], 4), np.ones((1, 3, 4, 4)))  # type: ignore[arg-type]


# --- torch on a device ------------------------------------------------------------------------------


def test_a_batch_is_filled_up_so_that_bytes_do_not_depend_on_it(
    weights: PublishedWeights, codes: Floats, expected: Floats
) -> None:
    batched = TorchGenerator(MobileStyleGan(weights), "cpu", batch=2, precision="float32")
    drawn = batched.draw(codes, SIZE)  # a whole batch and one that is filled up
    assert np.abs(drawn - expected).max() < 1e-3
    assert np.array_equal(batched.draw(codes[2:], SIZE), drawn[2:])


def test_one_code_may_lie_backwards_in_memory(
    reference: MobileStyleGan, engine: OpenVinoGenerator, codes: Floats, expected: Floats
) -> None:
    backwards = codes[:1][::-1]  # the same code; numpy keeps the stride below 0
    assert backwards.strides[0] < 0
    for drawer in (reference, engine, TorchGenerator(reference, "cpu", batch=1, precision="float32")):
        assert np.abs(drawer.draw(backwards, SIZE) - expected[:1]).max() < 1e-3


@pytest.mark.long  # processors without half precision are slow at it
def test_float16_keeps_the_face(
    weights: PublishedWeights, codes: Floats, expected: Floats, model: Callable[[str], Path]
) -> None:
    half = TorchGenerator(MobileStyleGan(weights), "cpu", batch=1, precision="float16")
    drawn = half.draw(codes[:1], SIZE)
    assert np.abs(drawn - expected[:1]).max() > 1e-4  # it is in use
    for name in ("arcface-mbf", "facenet"):
        model(name)
        same = embedded(expected[:1], expected[:1], name)
        assert cosines(embedded(drawn, expected[:1], name), same).min() >= 0.999
