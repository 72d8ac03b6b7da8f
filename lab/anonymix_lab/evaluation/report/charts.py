"""Charts as inline SVG that takes its colours from the page, so that light and dark fit."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from markupsafe import Markup, escape

from anonymix_lab.evaluation.schema import Histogram, LinkabilityPart, OneClass, TwoClass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that nobody chooses by chance stand for the page's own.
_INK, _SOFT, _LINE = "#010203", "#010204", "#010205"
_GOOD, _BAD, _BRAND, _MIXED = "#010206", "#010207", "#010208", "#010209"
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    _GOOD: "var(--good)",
    _BAD: "var(--bad)",
    _BRAND: "var(--brand)",
    _MIXED: "var(--mixed)",
}
_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anonymix",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "grid.color": _LINE,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
}
_SHORT: Final = {
    "unprotected": "unprotected",
    "own-key": "a key each",
    "claimed": "claimed key",
    "guided": "guided, a key each",
    "one-key": "one key",
    "guided-one-key": "guided, one key",
}
_LINES: Final = (
    ("unprotected", _SOFT, ":"),
    ("own-key", _BRAND, "-"),
    ("claimed", _MIXED, "--"),
    ("guided", _GOOD, "-"),
    ("one-key", _BAD, "-"),
    ("guided-one-key", _GOOD, "--"),
)


def genuine_and_impostor(part: TwoClass, threshold: float | None) -> Markup:
    """Histogram of both kinds of scores, each with area 1, and the frozen threshold."""

    def paint(axes: Axes) -> None:
        _stairs(axes, part.impostor_histogram, _BAD, "different people")
        _stairs(axes, part.genuine_histogram, _GOOD, "same person")
        _threshold(axes, threshold)
        _legend(axes)

    return _chart(paint, (3.5, 1.9), f"Scores of {part.scenario} by {part.matcher}")


def own_and_chance(part: OneClass, threshold: float | None) -> Markup:
    """Histogram of scores that ought not to match, over those of different people."""

    def paint(axes: Axes) -> None:
        _stairs(axes, part.chance_histogram, _SOFT, "different people")
        _stairs(axes, part.histogram, _BRAND, "this person")
        _threshold(axes, threshold)
        _legend(axes)

    return _chart(paint, (3.5, 1.9), f"Scores of {part.scenario} by {part.matcher}")


def det(parts: Sequence[TwoClass]) -> Markup:
    """DET curves of all scenarios of one matcher, both axes logarithmic."""

    def paint(axes: Axes) -> None:
        for scenario, colour, style in _LINES:
            for part in parts:
                if part.scenario != scenario:
                    continue
                points = np.array(part.det)
                points = points[np.argsort(points[:, 0], kind="stable")]
                axes.plot(
                    np.maximum(points[:, 0], 1e-5),
                    np.maximum(points[:, 1], 1e-4),
                    color=colour,
                    linestyle=style,
                    label=_SHORT[scenario],
                    drawstyle="steps-post",
                )
        axes.plot([1e-5, 1], [1e-5, 1], color=_LINE, linewidth=1)
        axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-3, 1), xlabel="FMR", ylabel="FNMR")
        axes.grid(True, linewidth=0.5)
        _legend(axes)

    name = parts[0].matcher if parts else ""
    return _chart(paint, (3.9, 3.3), f"DET curves by {name}", bare=False)


def linkability_curve(part: LinkabilityPart) -> Markup:
    """Densities of mated and non-mated scores, and D(s)."""

    def paint(axes: Axes) -> None:
        edges = np.linspace(part.low, part.high, part.bins + 1)
        axes.stairs(part.non_mated_density, edges, fill=True, color=_SOFT, alpha=0.45, label="different people")
        axes.stairs(part.mated_density, edges, fill=True, color=_BRAND, alpha=0.45, label="same person")
        twin = axes.twinx()
        twin.stairs(part.local, edges, color=_BAD, linewidth=1.2, label="D(s)")
        twin.set(ylim=(0, 1.05), yticks=[0, 0.5, 1])
        twin.spines["right"].set_visible(True)
        axes.set(xlim=(-0.5, 1.0), yticks=[])
        handles = [*axes.get_legend_handles_labels()[0], *twin.get_legend_handles_labels()[0]]
        _legend(axes, handles)

    return _chart(paint, (3.9, 2.1), f"Linkability {part.scenario} by {part.matcher}", bare=False)


def _legend(axes: Axes, handles: Any = None) -> None:
    """Above the chart, where it hides nothing."""
    handles = handles or axes.get_legend_handles_labels()[0]
    axes.legend(
        handles=handles,
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2 if len(handles) != 3 else 3,
        borderaxespad=0,
        handlelength=1.4,
        columnspacing=1.2,
    )


def _stairs(axes: Axes, histogram: Histogram, colour: str, label: str) -> None:
    counts = np.array(histogram.counts, np.float64)
    edges = np.linspace(histogram.low, histogram.high, len(counts) + 1)
    total = counts.sum()
    density = counts / total / (edges[1] - edges[0]) if total else counts
    axes.stairs(density, edges, fill=True, color=colour, alpha=0.45, label=label)
    axes.stairs(density, edges, color=colour, linewidth=0.9)


def _threshold(axes: Axes, threshold: float | None) -> None:
    if threshold is not None:
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle="--")
    axes.set(xlim=(-0.4, 1.0), yticks=[])


def _chart(paint: Any, size: tuple[float, float], about: str, *, bare: bool = True) -> Markup:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure: Figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        if bare:
            axes.spines["left"].set_visible(False)
        paint(axes)
        return _svg(figure, about)


def _svg(figure: Figure, about: str) -> Markup:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", text, count=1)
    text = re.sub(r"(<svg[^>]*?) (?:width|height)=\"[^\"]*\"", r"\1", text, count=1)
    text = re.sub(r" xmlns(?::xlink)?=\"[^\"]*\"", "", text)
    # The page's own font: matplotlib's families are not on every machine.
    text = re.sub(r"font: (?:[^;\"]*? )?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"(\d+\.\d{2})\d+", r"\1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    label = str(escape(about))
    # Matplotlib escapes what it writes; nothing else is in there.
    return Markup(text.replace("<svg", f'<svg class="chart" role="img" aria-label="{label}"', 1))  # noqa: S704
