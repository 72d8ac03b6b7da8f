"""Writing a report: index.html, metrics.json, scores/*.csv."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from anonymix_lab.evaluation.report.page import render
from anonymix_lab.evaluation.report.photos import SheetRow
from anonymix_lab.evaluation.report.schema import Report
from anonymix_lab.evaluation.scenarios import TITLES, Measured
from anonymix_plugin.files import make_folder, write_text

_NAME = re.compile(r"[^A-Za-z0-9.-]+")


def write_report(folder: Path, report: Report, measured: Measured, sheet: Sequence[SheetRow] = ()) -> None:
    """Write all files, each whole or not at all; the page comes last.

    A file of scores has one line for each comparison: number of the person on either side (by order of
    appearance, not by name), whether they are one person, fold (-1 if across folds), score.

    Raises:
        OutputError: One can't be written.
    """
    make_folder(folder / "scores")
    wanted = set()
    for entry in measured.scores:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["first_person", "second_person", "same", "fold", "score"])
        comparisons = entry.comparisons
        writer.writerows(
            (int(a), int(b), int(same), int(fold), f"{score:.5f}")
            for a, b, same, fold, score in zip(
                comparisons.first_person,
                comparisons.second_person,
                comparisons.same,
                comparisons.fold,
                entry.scores,
                strict=True,
            )
        )
        name = f"{entry.scenario}-{_NAME.sub('-', entry.matcher)}.csv"
        wanted.add(name)
        write_text(folder / "scores" / name, stream.getvalue())
    for stale in (folder / "scores").glob("*.csv"):
        if stale.name not in wanted and stale.name.startswith(tuple(TITLES)):
            stale.unlink()  # of an earlier run with other matchers: it would be taken for this one's
    write_text(folder / "metrics.json", report.model_dump_json(indent=2) + "\n")
    write_text(folder / "index.html", render(report, sheet))
