"""The page: all figures in one file that makes no request to anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from anonymix_lab.evaluation.attacks import ATTACKS
from anonymix_lab.evaluation.report.charts import (
    det,
    genuine_and_impostor,
    linkability_curve,
    own_and_chance,
)
from anonymix_lab.evaluation.report.photos import SheetRow
from anonymix_lab.evaluation.scenarios import TITLES
from anonymix_lab.evaluation.schema import AttackPart, Figure, Report
from anonymix_plugin.values import Pixels

_QUALITY: Final = 85
_TARGET: Final = 0.001
_ROOT: Final = Path(__file__).parents[2]


def render(report: Report, sheet: Sequence[SheetRow] = ()) -> str:
    """Write the page.

    Args:
        report: What was measured.
        sheet: Pictures of people; none without their consent.

    Returns:
        A complete HTML document with everything in it.
    """
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", _ROOT / "demo" / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "interval": interval,
        "picture": picture_uri,
        "duration": duration,
    }
    thresholds = {part.matcher: part.threshold for part in report.thresholds if part.target_fmr == _TARGET}
    matchers = sorted(report.matchers, key=lambda matcher: matcher.seen_by_mixer)
    return environment.get_template("report.html").render(
        report=report,
        facts=report.provenance,
        matchers=matchers,
        unseen=[matcher for matcher in matchers if not matcher.seen_by_mixer],
        titles=TITLES,
        attack_titles=ATTACKS,
        thresholds=thresholds,
        two={(part.scenario, part.matcher): part for part in report.two_class},
        one={(part.scenario, part.matcher): part for part in report.one_class},
        links={(part.scenario, part.matcher): part for part in report.linkability},
        charts=_charts(report, thresholds),
        attacks=attack_rows(report.attacks, matchers[0].name),
        protections=_protections(report),
        sheet=sheet,
        target=_TARGET,
        given=[part for part in report.requirements if part.given],
    )


def _charts(report: Report, thresholds: dict[str, float | None]) -> dict[str, Any]:
    names = [matcher.name for matcher in report.matchers]
    return {
        "two": {
            (part.scenario, part.matcher): genuine_and_impostor(part, thresholds.get(part.matcher))
            for part in report.two_class
        },
        "one": {
            (part.scenario, part.matcher): own_and_chance(part, thresholds.get(part.matcher))
            for part in report.one_class
            if not part.scenario.endswith("same-photo")
        },
        "det": {name: det([part for part in report.two_class if part.matcher == name]) for name in names},
        "link": {
            (part.scenario, part.matcher): linkability_curve(part)
            for part in report.linkability
            if part.scenario == "renewal"
        },
    }


def attack_rows(parts: Sequence[AttackPart], matcher: str) -> list[dict[str, Any]]:
    """Attacks by one matcher, one row each, with the protections side by side."""
    rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for part in parts:
        if part.matcher != matcher:
            continue
        # Without a key there is one row for what is hidden from nobody: it stands beside the hidden one.
        key = "hidden" if part.key == "none" and part.attack != "with-key" else part.key
        key = "disclosed" if part.key == "none" and part.attack in {"with-key", "preimage"} else key
        records = int(part.budget.get("records", 0)) if part.attack == "multiplicity" else 0
        name = (part.attack, key, part.goal, part.note if not records else f"{records} records")
        row = rows.setdefault(
            name, {"attack": part.attack, "key": key, "goal": part.goal, "note": name[3], "cells": {}}
        )
        row["cells"].setdefault(part.protection, part)
    return list(rows.values())


def _protections(report: Report) -> list[dict[str, Any]]:
    lines: dict[str, dict[str, Any]] = {}
    for part in report.protections:
        line = lines.setdefault(part.name, {"title": part.title, "first": part, "matchers": {}})
        line["matchers"][part.matcher] = part
    return [{"name": name, **line} for name, line in lines.items()]


def percent(value: float | None, digits: int = 2) -> str:
    """A share as people read it; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{100 * value:.{digits}f}".rstrip("0").rstrip(".") if value else "0"
    return f"{text} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number as people read it: .123; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def interval(figure: Figure) -> str:
    """The interval of a figure, in percent."""
    if figure.low is None or figure.high is None:
        return ""
    return f"{100 * figure.low:.2f} to {100 * figure.high:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as people read them."""
    if seconds is None:
        return "–"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {round(seconds % 60):02d} s"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def picture_uri(pixels: Pixels) -> str:
    """A picture as a data URI."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
