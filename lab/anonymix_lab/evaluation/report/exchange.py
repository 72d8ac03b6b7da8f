"""Scores and DET curves in the forms that other packages read: pyeer and bob.measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from anonymix_lab.metrics.curves import WeightedRates

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def exchange_files(name: str, scores: Array, same: Flags) -> dict[str, str]:
    """The files of one set of scores, by path.

    Scores are written so that the number that is read is the very number that our figures are of. Comparisons without
    an answer have the score -1, below all others.

    Args:
        name: What the files are called, without suffix.
        scores: (n,) float64.
        same: (n,) bool, which are genuine.

    Returns:
        `pyeer/genuine/NAME.txt` and `pyeer/impostor/NAME.txt`: a score a line, for `geteerinf -g genuine -i impostor`.
        `bob/NAME.txt`: 1 or -1 and a score a line, for `bob.measure.load.split` and `bob measure`.
        `det/NAME.csv`: threshold, FMR, FNMR at every threshold that makes a difference.
    """
    texts = [repr(score) for score in scores.tolist()]
    chosen = same.tolist()
    thresholds, fmr, fnmr = WeightedRates(scores, same).curve()
    curve = zip(thresholds.tolist(), fmr.tolist(), fnmr.tolist(), strict=True)
    genuine = [text for text, one in zip(texts, chosen, strict=True) if one]
    impostor = [text for text, one in zip(texts, chosen, strict=True) if not one]
    both = [f"{1 if one else -1} {text}" for text, one in zip(texts, chosen, strict=True)]
    return {
        f"pyeer/genuine/{name}.txt": _lines(genuine),
        f"pyeer/impostor/{name}.txt": _lines(impostor),
        f"bob/{name}.txt": _lines(both),
        f"det/{name}.csv": _lines(["threshold,fmr,fnmr", *(f"{a!r},{b!r},{c!r}" for a, b, c in curve)]),
    }


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
