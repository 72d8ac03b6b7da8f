"""StyleGAN2 from its definition, in float64, slowly: what the network is held to.

Weights per sample as in the paper (modulate, demodulate, convolve), upsampling by inserting zeros, filtering
and convolving in this order, one image and one channel at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import signal

Matrix = npt.NDArray[np.float64]

TAPS = np.array([1.0, 3.0, 3.0, 1.0])


def leaky(x: Matrix, clamp: float | None = None) -> Matrix:
    x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    return x if clamp is None else np.clip(x, -clamp, clamp)


def modulated(kernel: Matrix, style: Matrix, *, demodulate: bool) -> Matrix:
    """Equations 1 and 3 of the paper; kernel (out, in, 3, 3)."""
    weight = kernel * style[None, :, None, None]
    if not demodulate:
        return weight
    lengths = np.sqrt(np.square(weight).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
    return np.asarray(weight / lengths)


def convolved(x: Matrix, weight: Matrix, *, up: bool) -> Matrix:
    """One image (in, S, S) and its own weights (out, in, 3, 3)."""
    result = []
    for kernels in weight:
        total: Matrix = np.zeros(1)
        for plane, kernel in zip(x, kernels, strict=True):
            if up:
                spread = np.zeros((2 * plane.shape[0], 2 * plane.shape[1]))
                spread[::2, ::2] = plane
                spread = np.pad(spread, ((3, 2), (3, 2)))
                filtered = signal.convolve2d(spread, np.outer(TAPS, TAPS) / 16, mode="valid")
                # NVIDIA's layer that upsamples convolves; the others correlate.
                total = total + signal.convolve2d(filtered, kernel, mode="valid")
            else:
                total = total + signal.correlate2d(plane, kernel, mode="same")
        result.append(total)
    return np.stack(result)


def upsampled(picture: Matrix) -> Matrix:
    """scipy's upfirdn along both axes, cut to twice the size."""
    size = 2 * picture.shape[-1]
    picture = signal.upfirdn(TAPS / 4, picture, up=2, axis=-1)[..., 1 : size + 1]
    return np.asarray(signal.upfirdn(TAPS / 4, picture, up=2, axis=-2)[..., 1 : size + 1, :])


def mapped(weights: dict[str, torch.Tensor], z: Matrix, rate: float = 0.01) -> Matrix:
    """One code."""
    x = z / np.sqrt(np.mean(np.square(z)) + 1e-8)
    i = 0
    while f"mapping.{i}.weight" in weights:
        weight, bias = (weights[f"mapping.{i}.{part}"].double().numpy() for part in ("weight", "bias"))
        x = leaky(weight @ x * (rate / np.sqrt(len(x))) + bias * rate)
        i += 1
    return x


def drawn(weights: dict[str, torch.Tensor], w_plus: Matrix, clamp: float | None = None) -> Matrix:
    """One picture (3, S, S) of a code (inputs, w_dim)."""
    values = {name: tensor.double().numpy() for name, tensor in weights.items()}

    def style(name: str, w: Matrix) -> Matrix:
        affine = values[f"{name}.style.weight"]
        return np.asarray(affine @ w / np.sqrt(affine.shape[1]) + values[f"{name}.style.bias"])

    x = values["constant"]
    picture: Matrix | None = None
    for k in range(len(w_plus) - 1):
        name = f"conv.{k}"
        kernel = values[f"{name}.weight"]
        kernel = kernel / np.sqrt(kernel[0].size)
        weight = modulated(kernel, style(name, w_plus[k]), demodulate=True)
        x = convolved(x, weight, up=k % 2 == 1)
        x = x + values[f"{name}.strength"] * values[f"{name}.noise"]
        x = leaky(x + values[f"{name}.bias"][:, None, None], clamp)
        if k % 2 == 0:
            name = f"rgb.{k // 2}"
            colours = values[f"{name}.weight"]
            colours = colours / np.sqrt(colours.shape[1]) * style(name, w_plus[k + 1])[None]
            shown = np.einsum("oi,ihw->ohw", colours, x) + values[f"{name}.bias"][:, None, None]
            if clamp is not None:
                shown = np.clip(shown, -clamp, clamp)
            picture = shown if picture is None else upsampled(picture) + shown
    assert picture is not None
    return picture
