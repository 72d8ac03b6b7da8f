"""FaceRes computes what its graph says, and tells people apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import anonymix_lab.training.teachers as module
from anonymix_lab.training.teachers import FACERES, FACERES_FILES, FaceRes, load_teacher, read_faceres
from anonymix_plugin.cli import main
from anonymix_plugin.errors import DamagedModelError, MissingModelError, UsageError
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate

PEOPLE = Path(__file__).parents[1] / "people"
FILES = Path(__file__).parents[2] / FACERES

# Side by side: the widths of MobileNet's blocks, and by how much each divides the side (Howard et al. 2017, table 1).
WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STEPS = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def some_weights() -> dict[str, np.ndarray]:
    random = np.random.Generator(np.random.Philox(1))

    def kernel(*shape: int) -> np.ndarray:
        return random.normal(0, 1.5 / np.sqrt(np.prod(shape[:3])), shape).astype(np.float32)

    weights = {"conv1/convolution/merged_input": kernel(3, 3, 3, 32) / 64}
    weights["conv1_bn/batchnorm_1/sub"] = random.normal(0, 0.1, 32).astype(np.float32)
    width = 32
    for block, out in enumerate(WIDTHS, 1):
        weights[f"conv_dw_{block}/depthwise_kernel"] = random.normal(0, 0.5, (3, 3, width, 1)).astype(np.float32)
        weights[f"conv_dw_{block}_bn/batchnorm_1/mul"] = random.uniform(0.5, 1, width).astype(np.float32)
        weights[f"conv_dw_{block}_bn/batchnorm_1/sub"] = random.normal(0, 0.1, width).astype(np.float32)
        weights[f"conv_pw_{block}/convolution/merged_input"] = kernel(1, 1, width, out)
        weights[f"conv_pw_{block}_bn/batchnorm_1/sub"] = random.normal(0, 0.1, out).astype(np.float32)
        width = out
    return weights


def published(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The published graph, by ONNX Runtime: its "SAME_UPPER" is TensorFlow's "same". (1, 3, 224, 224) -> (1024,)."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, held, now = [], [], "x"

    def add(kind: str, *inputs: str | np.ndarray, **attributes: object) -> None:
        nonlocal now
        names = []
        for value in inputs:
            if isinstance(value, str):
                names.append(value)
            else:
                held.append(numpy_helper.from_array(np.ascontiguousarray(value), f"w{len(held)}"))
                names.append(held[-1].name)
        nodes.append(helper.make_node(kind, names, [f"v{len(nodes)}"], **attributes))
        now = f"v{len(nodes) - 1}"

    def channels(values: np.ndarray) -> np.ndarray:
        return values.reshape(1, -1, 1, 1)

    def relu6() -> None:
        add("Clip", now, np.float32(0).reshape(()), np.float32(6).reshape(()))

    same = {"auto_pad": "SAME_UPPER"}
    add("Conv", now, weights["conv1/convolution/merged_input"].transpose(3, 2, 0, 1), strides=[2, 2], **same)
    add("Add", now, channels(weights["conv1_bn/batchnorm_1/sub"]))
    relu6()
    for block, step in enumerate(STEPS, 1):
        deep = weights[f"conv_dw_{block}/depthwise_kernel"].transpose(2, 3, 0, 1)
        add("Conv", now, deep, strides=[step, step], group=len(deep), **same)
        add("Mul", now, channels(weights[f"conv_dw_{block}_bn/batchnorm_1/mul"]))
        add("Add", now, channels(weights[f"conv_dw_{block}_bn/batchnorm_1/sub"]))
        relu6()
        add("Conv", now, weights[f"conv_pw_{block}/convolution/merged_input"].transpose(3, 2, 0, 1))
        add("Add", now, channels(weights[f"conv_pw_{block}_bn/batchnorm_1/sub"]))
        relu6()
    add("ReduceMean", now, axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        nodes,
        "faceres",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(now, TensorProto.FLOAT, [1, 1024])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0][0])


def test_faceres_computes_what_its_graph_says() -> None:
    weights = some_weights()
    pixels = np.random.Generator(np.random.Philox(2)).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
    mean = np.array([103.939, 116.779, 123.68], np.float32).reshape(1, 3, 1, 1)
    expected = published(pixels[:, ::-1] * 127.5 + 127.5 - mean, weights)
    found = FaceRes(weights)(torch.from_numpy(pixels))[0].numpy()
    assert expected.std() > 0.05  # the graph says something
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_gradients_reach_the_crop() -> None:
    crops = torch.zeros(1, 3, 112, 112, requires_grad=True)
    FaceRes(some_weights())(crops).square().sum().backward()
    assert crops.grad is not None
    assert crops.grad.abs().max() > 0


def test_faceres_tells_drawn_people_apart() -> None:
    if not FILES.is_file():
        pytest.skip("FaceRes is not here: make teacher")
    teacher, detector = read_faceres(FILES), YuNet(locate("yunet"))
    photos = sorted(PEOPLE.glob("*.jpg"))
    crops = np.stack([recogniser_crop(detector.detect(decode_photo(path))[0]) for path in photos])
    with torch.inference_mode():
        seen = F.normalize(teacher(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1), dim=1).numpy()
    who = np.array([path.stem.partition("_")[0] for path in photos])
    cosines, same = seen @ seen.T, np.equal.outer(who, who)
    np.fill_diagonal(cosines, -1)
    assert (who[cosines.argmax(axis=1)] == who).mean() > 0.9
    assert cosines[same & (cosines > -1)].mean() > cosines[~same].mean() + 0.2


def test_missing_and_altered_files_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="make teacher"):
        read_faceres(tmp_path / "faceres.json")
    (tmp_path / "faceres.json").write_text("{}")
    with pytest.raises(DamagedModelError, match=r"faceres\.json.*make teacher"):
        read_faceres(tmp_path / "faceres.json")


@pytest.mark.parametrize("teachers", ["", "sface,", "facenet", "sface,arcface", "sface,faceres"])
def test_a_teacher_that_is_none_is_told_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], teachers: str
) -> None:
    monkeypatch.setattr(module, "FACERES", tmp_path / "faceres.json")
    small = ("--generator", "small", "--start", str(tmp_path / "nowhere"))
    command = ["train", "mapper", "-o", str(tmp_path / "out.safetensors"), "--subspace", str(tmp_path / "nowhere")]
    assert main([*command, *small, "--teachers", teachers]) == (5 if "faceres" in teachers else 2)
    told = capsys.readouterr().err
    assert "make teacher" in told if "faceres" in teachers else "known: arcface-mbf, sface, faceres" in told


def test_teachers_are_loaded_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_teacher("sface")(torch.zeros(1, 3, 112, 112)).shape == (1, 128)
    with pytest.raises(UsageError, match="five points"):
        load_teacher("facenet")
    monkeypatch.setattr(module, "FACERES", tmp_path / "faceres.json")
    with pytest.raises(MissingModelError):
        load_teacher("faceres")
    assert {path.suffix for path in FACERES_FILES} == {".json", ".bin"}
