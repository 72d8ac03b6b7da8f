"""Making the generator that this machine should use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

from anonymix_plugin.errors import UsageError
from anonymix_plugin.generator.openvino_engine import OpenVinoGenerator
from anonymix_plugin.generator.protocol import Generator
from anonymix_plugin.generator.published_weights import PublishedFiles
from anonymix_plugin.generator.small_weights import SmallWeights, read_small
from anonymix_plugin.models import content_of_model

if TYPE_CHECKING:
    from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
    from anonymix_plugin.generator.small import SmallGenerator

Engine = Literal["auto", "openvino", "openvino-bf16", "torch", "cuda"]

_ON_OPENVINO: Final = ("auto", "openvino", "openvino-bf16")

GeneratorName = Literal["mobilestylegan", "small"]
"""The generators that come with Anonymix: the large one, and one that draws 256 px in a third of the pass."""


def load_reference_generator() -> MobileStyleGan:
    """Load MobileStyleGAN in torch: differentiable, slow.

    Raises:
        MissingModelError: The weights are not on this machine.
        DamagedModelError: They are not the registry's.
    """
    from anonymix_plugin.generator.mobilestylegan import MobileStyleGan

    return MobileStyleGan(_published().read())


def load_generator(
    engine: Engine = "auto", *, threads: int = 0, at_once: int = 1, name: GeneratorName = "mobilestylegan"
) -> Generator:
    """Load a generator on one of its engines.

    Args:
        engine: "openvino" is the fastest on a CPU; "torch" is the reference and has gradients; "cuda" is
            the reference on a GPU, in batches. "openvino-bf16" is twice as fast where the processor computes in
            bfloat16, and draws the large generator alone. "auto" takes OpenVINO, and the reference where OpenVINO
            can't be had on this machine. It never takes a GPU by itself: what a face's bytes are must not
            depend on whether a driver is there.
        threads: CPU threads of the OpenVINO engine for one face, 0 for its own choice.
        at_once: How many faces the OpenVINO engine draws at the same time.
        name: Which one.

    Raises:
        MissingModelError: The weights are not on this machine.
        DamagedModelError: They are not the registry's.
        UsageError: There is no such engine, or it can't run here and was asked for by name.
    """
    published = _published()
    small = read_small(published.sha256) if name == "small" else None
    if engine == "torch":
        return _reference(published, small)
    if engine == "cuda":
        from anonymix_plugin.generator.torch_engine import TorchGenerator

        return TorchGenerator(_reference(published, small), "cuda")
    if engine == "openvino-bf16":
        return _bfloat(published, small, threads, at_once)
    made = OpenVinoGenerator(published, threads=threads, at_once=at_once, small=small)
    return prepared(made, engine, lambda: _reference(published, small))


class _Preparable(Generator, Protocol):
    def prepare(self, size: int | None = None) -> None: ...


def prepared(made: _Preparable, engine: str, reference: Callable[[], Generator]) -> Generator:
    """The generator on OpenVINO, compiled; where OpenVINO can't be had and "auto" was asked for, the reference.

    Raises:
        UsageError: There is no such engine, or it can't run here and was asked for by name.
    """
    if engine not in _ON_OPENVINO:
        raise UsageError(f"there is no engine {engine!r}", where="engine", fix="take auto, openvino or torch")
    try:
        made.prepare()
    except (ImportError, RuntimeError) as error:
        if engine != "auto":
            raise UsageError(
                f"OpenVINO can't draw on this machine: {error}", where="engine", fix="use the engine auto"
            ) from error
        return reference()
    return made


def _bfloat(published: PublishedFiles, small: SmallWeights | None, threads: int, at_once: int) -> Generator:
    from anonymix_plugin.generator.openvino_bfloat import NAME, BfloatGenerator

    if small is not None:
        raise UsageError(f"{NAME} draws the large generator alone", where="engine", fix="use the engine auto")
    made = BfloatGenerator(published, threads=threads, at_once=at_once)
    return prepared(made, NAME, lambda: _reference(published, None))


def _reference(published: PublishedFiles, small: SmallWeights | None) -> MobileStyleGan | SmallGenerator:
    from anonymix_plugin.generator.mobilestylegan import MobileStyleGan
    from anonymix_plugin.generator.small import SmallGenerator

    large = MobileStyleGan(published.read())
    return large if small is None else SmallGenerator(large, small)


def _published() -> PublishedFiles:
    return PublishedFiles([content_of_model("mobilestylegan", name) for name in _FILES])


_FILES = ("MappingNetwork.xml", "MappingNetwork.bin", "SynthesisNetwork.xml", "SynthesisNetwork.bin")
