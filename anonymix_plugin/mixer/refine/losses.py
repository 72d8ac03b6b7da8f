"""The losses of the refinement, after FaceAnonyMixer (arXiv 2508.05636), on embeddings and features alone.

    L       = 10 L_anon + 10 L_idp + 0.15 L_attr
    L_anon  = | cos(I(x_p), I(x_r)) - m |
    L_idp   = mean_i (1 - cos(I(a_i(x_p)), anchor)) + mean_{i<j} (1 - cos(I(a_i(x_p)), I(a_j(x_p))))
    L_attr  = mean | A(x_p) - A(x_r) |

x_r is the real photo, x_p the face drawn, I a recogniser, a_0 the identity, a_1, ... augmentations, A the
attribute features. The paper draws all photos of a person together and needs no anchor. Here a probe
comes alone and later; the anchor is what it has in common with the enrolment: a direction in the
recogniser's space that follows from the key and the person's code.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from anonymix_plugin.errors import UsageError
from anonymix_plugin.mixer.key_schedule import KeySchedule

Anchor = npt.NDArray[np.float64]
"""A direction in the embedding space of one recogniser, (dim,) float64, length 1."""

ANCHOR_LABEL: Final = "anchor/"
"""Streams of the key schedule for anchors are called this and the recogniser's name."""


def anonymity_loss(drawn: torch.Tensor, real: torch.Tensor, margin: float = 0.0) -> torch.Tensor:
    """L_anon: how far the similarity to the real person is from the similarity of strangers.

    Args:
        drawn: (N, dim) embeddings of drawn faces, of any length.
        real: (dim,) embedding of the real photo, of any length.
        margin: The cosine m to be reached, -1..1; two strangers have 0.

    Returns:
        A scalar, 0..1 + |m|: the mean over the faces.
    """
    return (functional.cosine_similarity(drawn, real[None], dim=1) - margin).abs().mean()


def anchor_loss(embeddings: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
    """Mean cosine distance from an anchor.

    Args:
        embeddings: (N, dim), of any length.
        anchor: (dim,), of any length.

    Returns:
        A scalar, 0..2.
    """
    return (1 - functional.cosine_similarity(embeddings, anchor[None], dim=1)).mean()


def pairwise_distance(embeddings: torch.Tensor) -> torch.Tensor:
    """Mean cosine distance over all pairs of different rows.

    Args:
        embeddings: (N, dim), of any length.

    Returns:
        A scalar, 0..2 (at most N / (N - 1), which opposite pairs reach); 0 where there is no pair.
    """
    count = len(embeddings)
    if count < 2:
        return embeddings.sum() * 0  # keeps its place in the graph of derivatives
    unit = functional.normalize(embeddings, dim=1)
    cosines = unit @ unit.T
    return 1 - (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))


def identity_loss(embeddings: torch.Tensor, anchor: torch.Tensor | None) -> torch.Tensor:
    """L_idp: near the anchor, and near each other.

    Args:
        embeddings: (N, dim) embeddings of the drawn face and its augmentations, of any length.
        anchor: (dim,), of any length; None for the paper's own loss, which has no anchor.

    Returns:
        A scalar, 0..4.
    """
    apart = pairwise_distance(embeddings)
    return apart if anchor is None else anchor_loss(embeddings, anchor) + apart


def attribute_loss(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """L_attr: mean absolute difference of attribute features, both (N, F); a scalar >= 0."""
    return (drawn - real).abs().mean()


def keyed_anchor(schedule: KeySchedule, recogniser: str, code: npt.NDArray[np.float64], dim: int) -> Anchor:
    """The anchor of a person under a key: R u, scaled to length 1.

    R is a keyed matrix with orthonormal columns, so that under one key two people's anchors are exactly as
    alike as their codes are; under another key, or in another recogniser's space, the anchor points
    elsewhere.

    Args:
        schedule: The key.
        recogniser: Name of the recogniser; part of the stream's label.
        code: (d,) float64, the person's code u, d <= dim, not zero.
        dim: Size of the recogniser's embedding.

    Returns:
        (dim,) float64 of length 1.

    Raises:
        UsageError: The code is no such vector.
    """
    length = float(np.linalg.norm(code)) if code.ndim == 1 else float("nan")
    if not (np.isfinite(length) and length > 0 and len(code) <= dim):
        raise UsageError(
            f"a person's code of shape {code.shape} can't be an anchor in {dim} dimensions",
            where="code",
            fix=f"pass 1 to {dim} finite numbers that are not all zero",
        )
    anchor = schedule.rotation(f"{ANCHOR_LABEL}{recogniser}", dim, len(code)) @ (code / length)
    return np.asarray(anchor / np.linalg.norm(anchor))
