"""FaceNet's network, read from a file that Keras wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from anonymix_plugin.errors import DamagedModelError
from anonymix_plugin.recognisers import keras_weights
from anonymix_plugin.recognisers._inception_resnet import InceptionResnetV1, standardised
from anonymix_plugin.recognisers.keras_weights import read_inception_resnet

h5py = pytest.importorskip("h5py")


@pytest.fixture(scope="module")
def network(model):
    return read_inception_resnet(model("facenet"))


def test_every_array_of_the_file_is_used_and_no_other(model, monkeypatch):

    used = []
    get = keras_weights._Arrays.get

    def counted(self, layer, name, shape):
        used.append(f"{layer}/{name}:0")
        return get(self, layer, name, shape)

    monkeypatch.setattr(keras_weights._Arrays, "get", counted)
    read_inception_resnet(model("facenet"))
    with h5py.File(model("facenet")) as file:
        weights = file["model_weights"]
        held = [name for layer in weights.attrs["layer_names"] for name in weights[layer].attrs["weight_names"]]
    assert len(used) == 490
    assert sorted(used) == sorted(held)


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        ("Conv2d_1a_3x3", lambda network: network.stem[0]),
        ("Block17_3_Branch_1_Conv2d_0b_1x7", lambda network: network.body[8].branches[1][1]),
        ("Mixed_7a_Branch_2_Conv2d_1a_3x3", lambda network: network.body[16].branches[2][2]),
    ],
)
def test_a_layer_does_its_convolution_its_normalisation_and_its_relu(network, model, layer, place):
    with h5py.File(model("facenet")) as file:
        kernel = torch.from_numpy(file["model_weights"][layer][f"{layer}/kernel:0"][:]).permute(3, 2, 0, 1)
        norm = file["model_weights"][f"{layer}_BatchNorm"][f"{layer}_BatchNorm"]
        beta, mean, variance = (
            torch.from_numpy(norm[f"{name}:0"][:]) for name in ("beta", "moving_mean", "moving_variance")
        )
    conv = place(network).conv
    x = torch.randn(2, kernel.shape[1], 19, 19, generator=torch.Generator().manual_seed(3))
    plain = functional.conv2d(x, kernel, stride=conv.stride, padding=conv.padding)
    expected = functional.relu(functional.batch_norm(plain, mean, variance, None, beta, eps=1e-3))
    assert place(network).name == layer
    torch.testing.assert_close(place(network)(x), expected, rtol=1e-4, atol=1e-4)


def test_shapes_shrink_as_the_paper_draws_them(network):
    x = torch.zeros(1, 3, 160, 160)
    x = network.stem(x)
    assert tuple(x.shape) == (1, 256, 17, 17)
    assert tuple(network.body[:6](x).shape) == (1, 896, 8, 8)
    assert tuple(network.body(x).shape) == (1, 1792, 3, 3)


def test_standardised_images_have_mean_0_and_std_1():
    x = torch.rand(3, 3, 8, 8) * 255
    y = standardised(x)
    assert y.mean(dim=(1, 2, 3)).numpy() == pytest.approx(0, abs=1e-5)
    assert y.std(dim=(1, 2, 3), unbiased=False).numpy() == pytest.approx(1, abs=1e-5)
    assert torch.equal(standardised(torch.full((1, 3, 8, 8), 7.0)), torch.zeros(1, 3, 8, 8))


def test_files_of_another_network_are_refused(tmp_path):
    junk = tmp_path / "junk.h5"
    junk.write_bytes(b"not HDF5")
    with pytest.raises(DamagedModelError, match=r"junk\.h5"):
        read_inception_resnet(junk)
    empty = tmp_path / "empty.h5"
    h5py.File(empty, "w").close()
    with pytest.raises(DamagedModelError, match=r"empty\.h5"):
        read_inception_resnet(empty)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["model_weights/Conv2d_1a_3x3/Conv2d_1a_3x3/kernel:0"] = np.zeros((5, 5, 3, 32), np.float32)
    with pytest.raises(DamagedModelError, match=r"Conv2d_1a_3x3/kernel has the shape"):
        read_inception_resnet(other)


def test_the_network_has_the_published_number_of_parameters():
    # The trainable ones: a normalisation's offset lives on as the bias, its moving averages in the weights.
    assert sum(parameter.numel() for parameter in InceptionResnetV1().parameters()) == 22_779_312
