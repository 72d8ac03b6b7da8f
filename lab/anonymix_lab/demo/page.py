"""One page with everything on it: no script, no request to anywhere, pictures and style inside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from anonymix_lab.demo.summary import licences
from anonymix_lab.demo.values import Chapter, Grid, MatcherFacts, Story, Trial
from anonymix_lab.demo.verdict import CHAPTERS, Finding, Verdict, ended_right
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.values import CancelableFace, Pixels

_SIDE: Final = 256
_QUALITY: Final = 85
_LOWEST, _HIGHEST = -0.4, 1.0  # ends of the axis of similarities

_FACE_STAGES: Final = {
    "decode": "decode the file",
    "detect": "find the face",
    "align": "align it",
    "embed": "read the person",
    "encode": "read pose and light",
    "mix": "mix person and key",
    "generate": "draw the new face",
}


@dataclass(frozen=True)
class _Dot:
    """One score on a strip: where, in percent of the axis, and whether it is where it should be."""

    left: float
    right: bool
    about: str


@dataclass(frozen=True)
class _Strip:
    """All scores of a chapter by one recogniser."""

    matcher: MatcherFacts
    finding: Finding
    limit: float
    dots: tuple[_Dot, ...]


@dataclass(frozen=True)
class _Chapter:
    title: str
    about: str
    accept: bool
    strips: tuple[_Strip, ...]


@dataclass(frozen=True)
class _Cell:
    """One cell of a table; `match` is what the recogniser says, `right` whether it should."""

    score: float
    heat: int
    match: bool
    right: bool


@dataclass(frozen=True)
class _Table:
    grid: Grid
    matcher: MatcherFacts
    rows: tuple[tuple[str, tuple[_Cell, ...]], ...]


def render(story: Story, verdict: Verdict, facts: dict[str, Any]) -> str:
    """Write the page.

    Args:
        story: What happened.
        verdict: How it ended.
        facts: The summary, for the small print.

    Returns:
        A complete HTML document.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"photo": photo_uri, "face": face_uri, "score": _score, "seconds": _seconds}
    seconds = sum(stage.seconds for stage in story.stages)
    wrong = sum(finding.count - finding.right for finding in verdict.findings)
    return environment.get_template("page.html").render(
        story=story,
        verdict=verdict,
        facts=facts,
        seconds=seconds,
        compared=sum(finding.count for finding in verdict.findings),
        wrong=wrong,
        titles={matcher.name: matcher.title for matcher in story.matchers},
        tiles=_tiles(verdict),
        chapters=_chapters(story, verdict),
        tables=[[_table(story, grid, matcher) for matcher in story.matchers] for grid in story.grids],
        longest=max(stage.seconds for stage in story.stages),
        faces=sum(stage.faces for stage in story.stages),
        face_stages=[
            (label, story.face_seconds[name]) for name, label in _FACE_STAGES.items() if name in story.face_seconds
        ],
        ticks=[(_place(value / 10), value / 10) for value in range(-4, 11, 2)],
        licences=licences(story),
    )


def photo_uri(pixels: Pixels) -> str:
    """An unprotected photo as a data URI, JPEG."""
    stream = io.BytesIO()
    Image.fromarray(_shrunk(pixels)).save(stream, "JPEG", quality=_QUALITY)
    return _uri(stream.getvalue())


def face_uri(face: CancelableFace) -> str:
    """A cancelable face as a data URI, JPEG, with its marker."""
    small = replace(face, pixels=_shrunk(face.pixels))
    return _uri(encode_cancelable(small, "JPEG", quality=_QUALITY))


def _shrunk(pixels: Pixels) -> Pixels:
    if pixels.shape[0] <= _SIDE:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _uri(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _score(value: float) -> str:
    """A similarity as people write it in tables: .63, -.05."""
    return f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")


def _seconds(value: float) -> str:
    if value >= 60:
        return f"{int(value // 60)} min {round(value % 60):02d} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _place(score: float) -> float:
    """Where a score lies on the axis, in percent."""
    return round(100 * (min(max(score, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST), 2)


def _tiles(verdict: Verdict) -> list[tuple[str, str, str]]:
    """The few numbers that matter, over all recognisers: number, meaning, how well it stands."""

    def tile(meaning: str, *chapters: Chapter) -> tuple[str, str, str]:
        own = [finding for chapter in chapters for finding in verdict.of(chapter)]
        right, count = sum(finding.right for finding in own), sum(finding.count for finding in own)
        state = "good" if right == count else "mixed" if all(finding.holds for finding in own) else "bad"
        return f"{right if own[0].accept else count - right} / {count}", meaning, state

    return [
        tile("probes of the right person accepted", "genuine"),
        tile("attempts by somebody else accepted", "impostor"),
        tile("unprotected photos recognised in the protected gallery", "original"),
        tile("matches between faces under different keys", "other-key", "old-key"),
    ]


def _chapters(story: Story, verdict: Verdict) -> list[_Chapter]:
    chapters = []
    for name, (title, about) in CHAPTERS.items():
        own = [trial for trial in story.trials if trial.chapter == name]
        if not own:
            continue
        strips = tuple(
            _Strip(matcher, finding, _place(matcher.threshold), tuple(_dot(trial, matcher) for trial in own))
            for matcher, finding in zip(story.matchers, verdict.of(name), strict=True)
        )
        chapters.append(_Chapter(title, about, own[0].accept, strips))
    return chapters


def _dot(trial: Trial, matcher: MatcherFacts) -> _Dot:
    score = trial.scores[matcher.name]
    about = f"{trial.probe} as {trial.claimed}: {_score(score)}"
    return _Dot(_place(score), ended_right(trial, matcher), about)


def _table(story: Story, grid: Grid, matcher: MatcherFacts) -> _Table:
    rows = []
    for i, (portrait, values) in enumerate(zip(story.portraits, grid.values[matcher.name], strict=True)):
        cells = []
        for j, value in enumerate(values.tolist()):
            match = value >= matcher.threshold
            heat = round(90 * min(max(value, 0.0), 1.0))
            cells.append(_Cell(value, heat, match, match == (grid.diagonal and i == j)))
        rows.append((portrait.name, tuple(cells)))
    return _Table(grid, matcher, tuple(rows))
