"""`summary.json`: everything that was measured, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from anonymix_lab.demo.values import Story
from anonymix_lab.demo.verdict import CHAPTERS, Verdict
from anonymix_lab.machine import machine, versions
from anonymix_plugin import __version__
from anonymix_plugin.models import REGISTRY

SCHEMA: Final = 1

_PACKAGES: Final = ("numpy", "onnxruntime", "opencv-python-headless", "openvino", "pillow", "torch")
_USED: Final = ("mobilestylegan", "yunet", "arcface-mbf", "sface", "facenet")


def summary(story: Story, verdict: Verdict, seed: int | None) -> dict[str, Any]:
    """Put a story into a form that JSON takes.

    Args:
        story: What happened.
        verdict: How it ended.
        seed: Seed of the sample photos, None for photos of one's own.

    Returns:
        Scores are cosines, rounded to four digits; times are in seconds.
    """
    return {
        "schema": SCHEMA,
        "ok": verdict.ok,
        "holds": verdict.holds,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "anonymix": __version__,
        "fingerprint": story.fingerprint,
        "method": story.method,
        "policy": dict(story.policy),
        "sample_people": not story.own_photos,
        "seed": seed,
        "people": [{"name": one.name, "photos": len(one.photos)} for one in story.portraits],
        "matchers": [asdict(matcher) for matcher in story.matchers],
        "missing_matchers": [asdict(entry) for entry in story.missing_matchers],
        "chapters": _chapters(verdict),
        "wrong_at_thresholds_for_cancelable_faces": verdict.wrong_recalibrated,
        "comparisons": [
            {
                "chapter": trial.chapter,
                "claimed": trial.claimed,
                "probe": trial.probe,
                "expected": "accept" if trial.accept else "reject",
                "scores": {name: round(score, 4) for name, score in trial.scores.items()},
            }
            for trial in story.trials
        ],
        "tables": [
            {
                "name": grid.name,
                "title": grid.title,
                "rows": grid.rows,
                "columns": grid.columns,
                "people": [one.name for one in story.portraits],
                "scores": {name: values.round(4).tolist() for name, values in grid.values.items()},
            }
            for grid in story.grids
        ],
        "revocation": {
            "person": story.revocation.name,
            "versions": list(story.revocation.versions),
            "refusals": [asdict(refusal) for refusal in story.revocation.refusals],
            "refused": verdict.refused,
        },
        "rotation": {
            "person": story.rotation.name,
            "old_version": story.rotation.old.key_version,
            "new_version": story.rotation.new.key_version,
        },
        "skipped": [asdict(entry) for entry in story.skipped],
        "stages": [
            {"name": stage.name, "seconds": round(stage.seconds, 3), "faces": stage.faces} for stage in story.stages
        ],
        "seconds": round(sum(stage.seconds for stage in story.stages), 3),
        "face_seconds": {name: round(seconds, 5) for name, seconds in story.face_seconds.items()},
        "licences": licences(story),
        "versions": versions(_PACKAGES),
        "machine": machine(),
    }


def as_text(facts: Mapping[str, Any]) -> str:
    """The summary as the text of its file."""
    return json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def licences(story: Story) -> list[dict[str, str]]:
    """Licences of the weights that took part, and what they forbid."""
    matchers = {matcher.name for matcher in story.matchers}
    absent = {"facenet"} - matchers
    return [
        {
            "name": name,
            "role": REGISTRY[name].role,
            "licence": REGISTRY[name].licence,
            "restrictions": REGISTRY[name].restrictions,
        }
        for name in _USED
        if name not in absent
    ]


def _chapters(verdict: Verdict) -> list[dict[str, Any]]:
    chapters = []
    for chapter, (title, about) in CHAPTERS.items():
        if findings := verdict.of(chapter):
            chapters.append(
                {
                    "chapter": chapter,
                    "title": title,
                    "about": about,
                    "expected": "accept" if findings[0].accept else "reject",
                    "holds": all(finding.holds for finding in findings),
                    "matchers": {
                        finding.matcher: {
                            "comparisons": finding.count,
                            "as_expected": finding.right,
                            "lowest": round(finding.lowest, 4),
                            "mean": round(finding.mean, 4),
                            "highest": round(finding.highest, 4),
                        }
                        for finding in findings
                    },
                }
            )
    return chapters
