"""Recognisers as torch modules: the same answers as the originals, and gradients."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from anonymix_plugin.errors import BadArrayError, ModelError, UsageError
from anonymix_plugin.recognisers import torch_recogniser
from anonymix_plugin.recognisers.onnx_file import read_onnx
from anonymix_plugin.recognisers.onnx_torch import OnnxModule

NAMES = ["arcface-mbf", "sface", "facenet"]


@pytest.fixture(scope="module", params=NAMES)
def port(request, model):
    model(request.param)
    return torch_recogniser(request.param)


def as_tensor(crops):
    return torch.from_numpy(crops.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1


def graph(nodes, weights, shape=("N", 3, 6, 7)):
    """A model with input x and output y."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=6,
    )


def test_the_port_says_what_the_original_says(port, recogniser, london):
    crops = london(port.alignment)[:6]
    expected = recogniser(port.name).embed(crops)
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(port(as_tensor(crops))).numpy()
    assert np.abs(embeddings - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["arcface-mbf", "sface"])
def test_the_graph_equals_onnx_runtime_before_normalisation(model, name, noise):
    path = model(name)
    crops = noise(3, 112).transpose(0, 3, 1, 2).astype(np.float32)
    x = (crops - 127.5) / 127.5 if name == "arcface-mbf" else crops
    session = onnxruntime.InferenceSession(read_onnx(path).SerializeToString())
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    result = OnnxModule(read_onnx(path))(torch.from_numpy(x)).numpy()
    assert np.abs(expected).max() > 0.1
    assert np.abs(result - expected).max() < 1e-4


def test_gradients_reach_every_pixel(port, london):
    x = as_tensor(london(port.alignment)[:2]).requires_grad_()
    one, two = torch.nn.functional.normalize(port(x))
    (one @ two).backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad.abs().sum(dim=1) > 0).float().mean() > 0.99


def test_following_the_gradient_makes_faces_less_alike(port, london):
    crops = as_tensor(london(port.alignment)[:2])

    def similarity(x):
        return torch.nn.functional.cosine_similarity(port(x[:1]), port(x[1:])).squeeze()

    x = crops.clone().requires_grad_()
    before = similarity(x)
    before.backward()
    with torch.no_grad():
        after = similarity(crops - 0.02 * x.grad.sign())
    assert after < before - 0.1


def test_the_gradient_is_the_slope(port, london):
    x = as_tensor(london(port.alignment)[:1]).requires_grad_()
    direction = torch.nn.functional.avg_pool2d(torch.ones_like(x).cumsum(3), 5, 1, 2) / x.shape[3] - 0.5
    weights = torch.linspace(-1, 1, port(x).shape[1])
    (port(x)[0] @ weights).backward()
    slope = float((x.grad * direction).sum())
    with torch.no_grad():
        step = 5e-4  # short of the bends of ReLU, long enough for float32
        rise = (port(x + step * direction) - port(x - step * direction))[0] @ weights / (2 * step)
    assert slope == pytest.approx(float(rise), rel=0.05, abs=0.02)


def test_it_is_frozen_and_stays_in_evaluation(port, noise):
    x = as_tensor(noise(2, port.input_size))
    before = port(x)
    whole = torch.nn.ModuleList([port]).train()
    assert not any(module.training for module in whole[0].modules())
    assert not any(parameter.requires_grad for parameter in port.parameters())
    assert torch.equal(port(x), before)


def test_weights_move_with_their_module():
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(7)})
    module = OnnxModule(model).double()
    assert module(torch.zeros(1, 3, 6, 7, dtype=torch.float64)).dtype == torch.float64
    assert module.to("meta")(torch.zeros(1, 3, 6, 7, device="meta")).device.type == "meta"


def test_other_shapes_are_refused(port):
    with pytest.raises(BadArrayError, match=port.name):
        port(torch.zeros(1, 3, 64, 64))


def test_recognisers_without_gradients_are_named_as_such():
    with pytest.raises(UsageError, match="arcface-mbf, sface, facenet"):
        torch_recogniser("dlib-recognition")


RANDOM = np.random.default_rng(11)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        (
            [helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 1], pads=[1, 0, 1, 0])],
            {"w": RANDOM.normal(size=(4, 3, 3, 2))},
        ),
        (
            [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[0, 1, 2, 0], dilations=[2, 1], group=3)],
            {"w": RANDOM.normal(size=(6, 1, 3, 3)), "b": RANDOM.normal(size=6)},
        ),
        (
            [helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.1)],
            {
                "s": RANDOM.normal(size=3),
                "b": RANDOM.normal(size=3),
                "m": RANDOM.normal(size=3),
                "v": np.ones(3),
            },
        ),
        ([helper.make_node("PRelu", ["x", "s"], ["y"])], {"s": RANDOM.normal(size=(3, 1, 1))}),
        (
            [
                helper.make_node("Flatten", ["x"], ["f"], axis=1),
                helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1),
            ],
            {"w": RANDOM.normal(size=(5, 126)), "b": RANDOM.normal(size=5)},
        ),
        (
            [
                helper.make_node("Flatten", ["x"], ["f"], axis=2),
                helper.make_node("Gemm", ["f", "w"], ["y"], transA=1),
            ],
            {"w": RANDOM.normal(size=(6, 4))},
        ),
        (
            [
                helper.make_node("Sub", ["x", "a"], ["d"]),
                helper.make_node("Mul", ["d", "m"], ["e"]),
                helper.make_node("Dropout", ["e"], ["f"], ratio=0.4),
                helper.make_node("Add", ["f", "x"], ["y"]),
            ],
            {"a": np.array([127.5]), "m": np.array([0.25])},
        ),
    ],
    ids=["conv", "grouped-conv", "batch-norm", "prelu", "gemm", "gemm-transposed", "arithmetic"],
)
def test_each_operator_does_what_onnx_runtime_does(nodes, weights):
    model = graph(nodes, weights)
    x = RANDOM.normal(size=(2, 3, 6, 7)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    result = OnnxModule(model)(torch.from_numpy(x)).numpy()
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (helper.make_node("Softmax", ["x"], ["y"]), r"ai\.onnx\.Softmax"),
        (helper.make_node("Add", ["x", "x"], ["y"], domain="com.example"), r"com\.example\.Add"),
        (helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER"), "auto_pad"),
        (helper.make_node("Dropout", ["x"], ["y", "mask"]), "several outputs"),
    ],
)
def test_an_operator_or_a_form_of_it_that_is_not_known_is_refused(node, complaint):
    with pytest.raises(ModelError, match=complaint):
        OnnxModule(graph([node], {"w": np.ones((3, 3, 3, 3))}))


def test_weights_named_as_inputs_and_unused_inputs_are_dropped_and_the_batch_is_freed(tmp_path):
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(7)}, shape=(1, 3, 6, 7))
    for name in ("w", "gone"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, (7,)))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 6, 7)))
    onnx.save(model, tmp_path / "x.onnx")
    session = onnxruntime.InferenceSession(read_onnx(tmp_path / "x.onnx").SerializeToString())
    assert [item.name for item in session.get_inputs()] == ["x"]
    assert session.run(None, {"x": np.zeros((4, 3, 6, 7), np.float32)})[0].shape == (4, 3, 6, 7)
