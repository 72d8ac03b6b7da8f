"""Any torch module or ONNX Runtime session that takes aligned crops of faces.

    net = protect(net, mixer, layout=CropLayout(size=112, alignment="arcface"))
    with mixer.subject("alice"):
        embedding = net(crops)

The mixer works where the crops go in: each crop is turned back into a picture, mixed, found again in the
cancelable face, aligned and normalised as the layout says. Crops in a batch are all of one subject, or under
the gallery key.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from anonymix_adapters._networks import swap_module, swap_session
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import FaceMixer, Interceptor, KeyUse, ScopeRule, Whose
from anonymix_adapters.local import Recorder, VectorRehearsal, cosine, finder
from anonymix_adapters.protocol import Rehearsal
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import interceptor_of, need_interceptor, unwrap, wrap_class
from anonymix_plugin.errors import BadArrayError, NoFaceError, UsageError
from anonymix_plugin.faces import Detector, YuNet, box_crop, recogniser_crop
from anonymix_plugin.models import locate
from anonymix_plugin.values import Floats, Photo, Pixels
from anonymix_plugin.verification import named_threshold

__all__ = ["NAME", "SDKS", "CropLayout", "interceptor_of", "protect", "protect_crops", "rehearse", "unprotect"]

NAME = "crops"
SDKS = (
    Sdk("onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"), "", ">=1.18,<2"),
    Sdk("torch", ("torch",), "", ">=2.4,<3"),
)

Cut: TypeAlias = Callable[[Pixels], Pixels]
"""From a cancelable face to the crop that the recogniser wants."""


@dataclass(frozen=True)
class CropLayout:
    """What a recogniser takes: float arrays (n, 3, size, size), value = (pixel - mean) / scale.

    Attributes:
        size: Side of a crop in pixels.
        alignment: "arcface": five points at fixed places. "box": the detector's plain box, stretched.
        margin: For "box", what is added on each side, as a share of the box.
        mean: What is taken from pixels 0..255.
        scale: What they are then divided by.
        standardised: Each crop has mean 0 and standard deviation 1 by itself; `mean` and `scale` are left out.
        order: Order of the channels.
        channels_last: Whether arrays are (n, size, size, 3).
    """

    size: int = 112
    alignment: Literal["arcface", "box"] = "arcface"
    margin: float = 0.0
    mean: float = 127.5
    scale: float = 127.5
    standardised: bool = False
    order: Literal["rgb", "bgr"] = "rgb"
    channels_last: bool = False

    def to_pixels(self, crops: npt.NDArray[Any]) -> Pixels:
        """Turn the recogniser's input back into pictures, (n, size, size, 3) uint8 RGB.

        Raises:
            BadArrayError: It is of another shape or range, or has NaN.
        """
        values = np.asarray(crops)
        wanted = (self.size, self.size, 3) if self.channels_last else (3, self.size, self.size)
        if values.ndim != 4 or values.shape[1:] != wanted or not len(values):
            raise BadArrayError(
                f"crops have shape {values.shape}",
                where="crops",
                fix=f"give (n, {', '.join(map(str, wanted))})",
            )
        if values.dtype.kind not in "fu" or not np.isfinite(values).all():
            raise BadArrayError("crops hold NaN, infinity or no numbers", where="crops", fix="give floats")
        values = values.astype(np.float64)
        if not self.channels_last:
            values = values.transpose(0, 2, 3, 1)
        if self.standardised:
            low = values.min((1, 2, 3), keepdims=True)
            high = values.max((1, 2, 3), keepdims=True)
            pixels = (values - low) / np.maximum(high - low, 1e-9) * 255
        else:
            pixels = values * self.scale + self.mean
        if pixels.min() < -1 or pixels.max() > 256:
            raise BadArrayError(
                f"crops stand for pixels from {pixels.min():.0f} to {pixels.max():.0f}",
                where="crops",
                fix="say in the layout how they are normalised",
            )
        pixels = pixels[..., ::-1] if self.order == "bgr" else pixels
        return np.ascontiguousarray(np.clip(np.rint(pixels), 0, 255), np.uint8)

    def from_pixels(self, pixels: Pixels) -> Floats:
        """Turn pictures into the recogniser's input; the other way round of `to_pixels`."""
        values = (pixels[..., ::-1] if self.order == "bgr" else pixels).astype(np.float32)
        if self.standardised:
            mean = values.mean((1, 2, 3), keepdims=True)
            least = 1 / np.sqrt(values[0].size)
            values = (values - mean) / np.maximum(values.std((1, 2, 3), keepdims=True), least)
        else:
            values = (values - np.float32(self.mean)) / np.float32(self.scale)
        if not self.channels_last:
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, np.float32)

    def cutter(self, detector: Detector | None = None) -> Cut:
        """A function that finds the face in a cancelable picture and cuts it out."""
        looking = detector or finder()

        def cut(picture: Pixels) -> Pixels:
            found = looking.detect(Photo(picture, "cancelable face"))
            if not found:
                raise NoFaceError("the cancelable face has no face", where=NAME, fix="use another photo")
            if self.alignment == "arcface":
                return recogniser_crop(found[0], self.size)
            return box_crop(found[0], self.size, self.margin)

        return cut


def protect_crops(
    interceptor: Interceptor, layout: CropLayout, cut: Cut, crops: npt.NDArray[Any], whose: Whose | None = None
) -> Floats:
    """Turn a recogniser's input into that of cancelable faces, of the same shape, float32.

    Raises:
        SubjectNeededError: Nobody said whose faces they are.
        PhotoError, KeystoreError: As for `Interceptor.protect`.
    """
    owner = whose or interceptor.whose()
    faces = [interceptor.protect(picture, owner) for picture in layout.to_pixels(crops)]
    return layout.from_pixels(np.stack([cut(face.pixels) for face in faces]))


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    layout: CropLayout | None = None,
    cut: Cut | None = None,
    through: Collection[str] = (),
) -> Any:
    """Put the mixer in front of a `torch.nn.Module` or an `onnxruntime.InferenceSession`, in place.

    A module's `forward` goes through the mixer. Its other public methods refuse tensors, arrays and pictures,
    and its parts refuse to run by themselves. It can't be traced, exported or pickled; a deep copy of it is
    protected and runs its own weights. A session's `run` goes through the mixer, and its other ways to run
    are refused.

    Args:
        target: The network.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.
        layout: What the network takes; ArcFace's by default.
        cut: How the face is cut out of the cancelable picture; the layout's own way by default.
        through: Further methods of a module that take crops as `forward` does, `forward_features` say: they
            go through the mixer, too.

    Returns:
        The target.

    Raises:
        UsageError: The target is neither, or has no method that `through` names.
        DoubleProtectionError: It, or a part of it, is protected already, in another way.
    """
    chosen = layout or CropLayout()
    return install_crops(target, Interceptor(mixer, NAME, keys=keys, scope=scope), chosen, cut, through)


def install_crops(
    target: Any, interceptor: Interceptor, layout: CropLayout, cut: Cut | None, through: Collection[str] = ()
) -> Any:
    """`protect` for adapters built on this one, with an interceptor of their own."""
    if _is_session(target):
        SDKS[0].check()
        install: Callable[..., None] = swap_session
    elif _is_module(target):
        SDKS[1].check()
        install = swap_module
    else:
        raise UsageError(f"a {type(target).__name__} is neither a torch module nor an ONNX Runtime session", where=NAME)
    cutting = cut or layout.cutter()

    def mixed(crops: npt.NDArray[Any], subject: str | None) -> Floats:
        return protect_crops(interceptor, layout, cutting, crops, interceptor.whose(argument=subject))

    return wrap_class(target, interceptor, lambda it: install(it, interceptor, mixed, through))


unprotect = unwrap


def _is_module(target: object) -> bool:
    torch = sys.modules.get("torch")  # where nobody has imported it there is no module of its
    return torch is not None and isinstance(target, torch.nn.Module)


def _is_session(target: object) -> bool:
    import onnxruntime

    return isinstance(target, onnxruntime.InferenceSession)


@contextmanager
def rehearse(
    mixer: FaceMixer, *, keys: KeyUse = "own", scope: ScopeRule = "default", network: str = "arcface-mbf"
) -> Iterator[Rehearsal]:
    """A network of the registry in ONNX Runtime, YuNet and the five-point alignment in front of it.

    Args:
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery".
        scope: Scope of the keys.
        network: "arcface-mbf"; the threshold is that of FMR .01 % on Labeled Faces in the Wild.
    """
    if network != "arcface-mbf":
        raise AdapterError("there is a rehearsal for arcface-mbf only", where=network)
    onnxruntime = SDKS[0].load()
    SDKS[1].check()
    layout, detector = CropLayout(), YuNet(locate("yunet"))
    threshold = named_threshold(network, "fmr-0.01%").value
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session, original = (
        onnxruntime.InferenceSession(str(locate(network)), options, providers=["CPUExecutionProvider"])
        for _ in range(2)
    )
    recorder, plain = Recorder(), session.run

    def run(names: Any, feed: Any, run_options: Any = None) -> Any:
        for crops in feed.values():
            for picture in layout.to_pixels(crops):
                recorder.note(picture)
        return plain(names, feed, run_options)

    session.run = run
    client = protect(session, mixer, keys=keys, scope=scope, layout=layout)
    name = session.get_inputs()[0].name

    def crop(pixels: Pixels) -> Floats:
        found = detector.detect(Photo(pixels, "photo"))
        if not found:
            raise NoFaceError("no face was found", where=NAME, fix="use another photo")
        return layout.from_pixels(recogniser_crop(found[0])[None])

    yield VectorRehearsal(
        need_interceptor(client),
        client,
        embed=lambda pixels: client.run(None, {name: crop(pixels)})[0],
        embed_original=lambda pixels: original.run(None, {name: crop(pixels)})[0],
        score=cosine,
        accepts=lambda score: score >= threshold,
        higher_is_closer=True,
        recorder=recorder,
    )
