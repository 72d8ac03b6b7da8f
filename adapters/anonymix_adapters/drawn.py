"""A mixer that draws nothing: it hands on faces that were drawn elsewhere, each for the person it was drawn for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

import numpy as np
from PIL import Image

from anonymix_adapters.errors import AdapterError
from anonymix_plugin.bulk import Mixer, Result, Row
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import ChannelOrder
from anonymix_plugin.values import CancelableFace

_FACE: Final[ContextVar[CancelableFace | None]] = ContextVar("face", default=None)


class DrawnFaces:
    """Meets `FaceMixer`, in front of a back end whose faces workers draw.

    Args:
        keystore: Where the keys, and the enrolment records, are.
    """

    def __init__(self, keystore: Any) -> None:
        self._keystore = keystore
        self._mixer: Mixer | None = None

    @property
    def keystore(self) -> Any:
        """Where the keys, and the enrolment records, are."""
        return self._keystore

    @property
    def fingerprint(self) -> str:
        """The workers' mixer fingerprint."""
        return self._known.fingerprint

    @property
    def guided_fingerprint(self) -> str:
        """The fingerprint of their faces that a sealed reference had a say in."""
        return self._known.guided

    @property
    def _known(self) -> Mixer:
        if self._mixer is None:
            raise AdapterError("the workers have not loaded their weights yet")
        return self._mixer

    def know(self, mixer: Mixer) -> None:
        """Say what the workers' mixer is."""
        self._mixer = mixer

    def face_of(self, row: Row, result: Result) -> CancelableFace:
        """The face that was drawn for a row."""
        guided = self._mixer is not None and result.fingerprint == self._mixer.guided
        return replace(_face_of(row, result), guided=guided)

    @contextmanager
    def given(self, face: CancelableFace) -> Iterator[None]:
        """Hand on a face inside the block, in this context and those that are copied from it."""
        token = _FACE.set(face)
        try:
            yield
        finally:
            _FACE.reset(token)

    def subject(self, subject: str, *, scope: str | None = None, enrol: bool = False) -> AbstractContextManager[Claim]:
        """As `Anonymixer.subject`, so that a host's code runs unchanged."""
        return claimed(Claim(subject, scope, enrol))

    def protect(
        self,
        image: Any,
        *,
        subject: str | None = None,
        scope: str = "default",
        version: int | None = None,
        enrol: bool = False,  # noqa: ARG002 - the key was there when the face was drawn
        channel_order: ChannelOrder = "rgb",  # noqa: ARG002 - the photo is not looked at
    ) -> Any:
        """The face of the block around it, whatever the photo is.

        Raises:
            UsageError: There is none, or it was drawn for somebody else.
        """
        face = _FACE.get()
        if (
            face is None
            or (subject or "", scope) != (face.subject, face.scope)
            or version
            not in {
                None,
                face.key_version,
            }
        ):
            raise UsageError(
                "no face was drawn for this person under this key; nothing was sent",
                where="bulk renewal",
                fix="let the back end enrol whom it is asked to; where it opens a block of its own, name the subject"
                " as it was given, and no scope",
            )
        return [face] * len(image) if isinstance(image, list | tuple) else face


def _face_of(row: Row, result: Result) -> CancelableFace:
    with Image.open(io.BytesIO(result.image or b"")) as picture:
        pixels = np.asarray(picture.convert("RGB"), np.uint8)
    return CancelableFace(
        pixels=pixels,
        box=result.box,
        subject=row.subject or "",
        scope=row.scope,
        key_version=result.key_version,
        fingerprint=result.fingerprint,
        method=result.method,
        engine=result.engine,
        quality=result.quality,
    )
