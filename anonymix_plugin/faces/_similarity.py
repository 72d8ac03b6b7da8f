"""The similarity transform that carries one set of points onto another."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from anonymix_plugin.errors import UsageError

Matrix = npt.NDArray[np.float64]


def umeyama(src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> Matrix:
    """The similarity (rotation, uniform scale, shift, no reflection) with the least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns",
    IEEE TPAMI 13(4), 1991, equations 39 to 43.

    Args:
        src: (n, 2) points, n >= 2, not all the same.
        dst: (n, 2) points to carry them to.

    Returns:
        (2, 3) float64 matrix M, so that dst is about src @ M[:, :2].T + M[:, 2].

    Raises:
        UsageError: The shapes do not fit, or the points are not finite or all the same.
    """
    source, target = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise UsageError(f"two sets of (n, 2) points are needed, not {source.shape} and {target.shape}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise UsageError("the points hold NaN or infinity")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    variance = float((source_centred**2).sum()) / len(source)
    if variance <= 1e-12 * (1 + float((source_mean**2).sum())):
        raise UsageError("the points to be carried over are all the same")
    u, stretch, vt = np.linalg.svd(target_centred.T @ source_centred / len(source))
    # The smaller axis is turned round where the best orthogonal matrix would be a reflection.
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * signs) @ vt
    scale = float(stretch @ signs) / variance
    return np.column_stack([scale * rotation, target_mean - scale * rotation @ source_mean])
