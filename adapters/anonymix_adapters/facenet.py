"""facenet-pytorch: `MTCNN` and `InceptionResnetV1`.

    mtcnn, net = MTCNN(), InceptionResnetV1(pretrained="vggface2").eval()
    net = protect(net, mixer, mtcnn=mtcnn)
    with mixer.subject("alice"):
        embedding = net(mtcnn(photo)[None])

MTCNN is the host's own and is left as it is. The mixer works where the crops go into the network; the
cancelable face is cut out by the same MTCNN if it is given, else by YuNet's box. The package asks for old
versions of numpy, Pillow and torch: install it with `pip install --no-deps facenet-pytorch`, and torchvision
that fits your torch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_adapters.crops import CropLayout, Cut, install_crops
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule
from anonymix_adapters.local import Recorder, VectorRehearsal, cosine
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import interceptor_of, need_interceptor, unwrap
from anonymix_plugin.errors import NoFaceError, UsageError
from anonymix_plugin.faces import YuNet, box_crop
from anonymix_plugin.models import locate
from anonymix_plugin.values import Floats, Photo, Pixels
from anonymix_plugin.verification import named_threshold

__all__ = ["LAYOUT", "NAME", "SDKS", "STANDARDISED", "interceptor_of", "protect", "rehearse", "unprotect"]

NAME = "facenet"
SDKS = (
    Sdk("facenet_pytorch", ("facenet-pytorch",), "facenet", ">=2.6,<2.7"),
    Sdk("torchvision", ("torchvision",), "facenet", ">=0.19,<1"),
)

LAYOUT = CropLayout(size=160, alignment="box", mean=127.5, scale=128.0)
"""What MTCNN makes by default and the package's own weights take."""

STANDARDISED = CropLayout(size=160, alignment="box", standardised=True)
"""What the original FaceNet weights take: each crop standardised by itself (`prewhiten`)."""


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    mtcnn: Any = None,
    layout: CropLayout | None = None,
) -> Any:
    """Put the mixer in front of an `InceptionResnetV1`, in place.

    Args:
        target: The network.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.
        mtcnn: Cuts the face out of the cancelable picture, as it does with photos.
        layout: How the host normalises crops; `LAYOUT` by default.

    Returns:
        The network.

    Raises:
        SdkMissingError, SdkVersionError: The package is not there, or not as tested.
        UsageError: The target is something else.
        DoubleProtectionError: It is protected already, in another way.
    """
    for sdk in SDKS:
        sdk.check()
    if not isinstance(target, SDKS[0].load().InceptionResnetV1):
        raise UsageError(f"a {type(target).__name__} is no InceptionResnetV1", where=NAME)
    chosen = layout or LAYOUT
    interceptor = Interceptor(mixer, NAME, keys=keys, scope=scope)
    return install_crops(target, interceptor, chosen, None if mtcnn is None else _mtcnn_cut(mtcnn, chosen.size))


unprotect = unwrap


def _mtcnn_cut(mtcnn: Any, size: int) -> Cut:
    from facenet_pytorch import extract_face
    from PIL import Image

    def cut(picture: Pixels) -> Pixels:
        boxes, _ = mtcnn.detect(Image.fromarray(picture))
        if boxes is None:
            raise NoFaceError("MTCNN finds no cancelable face", where=NAME, fix="use another photo")
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        crop = extract_face(Image.fromarray(picture), boxes[int(np.argmax(areas))], size, mtcnn.margin)
        return np.ascontiguousarray(crop.numpy().transpose(1, 2, 0), np.uint8)

    return cut


@contextmanager
def rehearse(mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default") -> Iterator[Rehearsal]:
    """`InceptionResnetV1` with the FaceNet weights of the registry, which are 128-d and standardise crops.

    The photo's face is found by YuNet, on whose boxes the threshold was measured: that of FMR .1 % on
    Labeled Faces in the Wild.
    """
    SDKS[0].load()
    import torch

    threshold = named_threshold("facenet", "fmr-0.1%").value
    net, detector, recorder = network(), YuNet(locate("yunet")), Recorder()
    original, plain = copy.deepcopy(net), net.forward

    def forward(crops: Any) -> Any:
        for picture in STANDARDISED.to_pixels(crops.numpy()):
            recorder.note(picture)
        return plain(crops)

    net.forward = forward
    protect(net, mixer, keys=keys, scope=scope, layout=STANDARDISED)

    def crops(pixels: Pixels) -> Floats:
        found = detector.detect(Photo(pixels, "photo"))
        if not found:
            raise NoFaceError("no face was found", where=NAME, fix="use another photo")
        return STANDARDISED.from_pixels(box_crop(found[0], 160)[None])

    def embed(run: Any, pixels: Pixels) -> npt.NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(run(torch.from_numpy(crops(pixels))).numpy())

    yield VectorRehearsal(
        need_interceptor(net),
        net,
        embed=lambda pixels: embed(net, pixels),
        embed_original=lambda pixels: embed(original, pixels),
        score=cosine,
        accepts=lambda score: score >= threshold,
        higher_is_closer=True,
        recorder=recorder,
    )


def network() -> Any:
    """The package's `InceptionResnetV1` with the FaceNet weights of the registry, ready to embed.

    The weights are those of the same network with each batch normalisation folded into the convolution before
    it, so that the package's own normalisations get what makes them add the bias and do nothing else.

    Raises:
        ModelError: The weights are missing or damaged.
        AdapterError: The package's network is built in another way.
    """
    import torch
    from facenet_pytorch import InceptionResnetV1

    from anonymix_plugin.recognisers.keras_weights import read_inception_resnet

    folded = read_inception_resnet(locate("facenet"))
    net = InceptionResnetV1(pretrained=None)
    net.last_linear = torch.nn.Linear(1792, folded.dim, bias=False)
    net.last_bn = torch.nn.BatchNorm1d(folded.dim, eps=0.001)
    ours: list[Any] = [layer for layer in folded.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    theirs: list[Any] = [
        layer
        for layer in net.modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d | torch.nn.BatchNorm1d)
    ]
    for source in ours:
        layer = theirs.pop(0)
        if layer.weight.shape != source.weight.shape:
            raise AdapterError("InceptionResnetV1 is built in another way than the weights are for", where=NAME)
        layer.weight.data.copy_(source.weight.data)
        target = layer if layer.bias is not None else theirs.pop(0)
        target.bias.data.copy_(source.bias.data)
        if target is not layer:
            target.running_mean.zero_()
            target.running_var.fill_(1.0)
            target.weight.data.fill_((1.0 + target.eps) ** 0.5)
    return net.eval().requires_grad_(False)
