"""Writing a report: index.html, metrics.json, tables/, scores/, exchange/."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from anonymix_lab.evaluation.report.exchange import exchange_files
from anonymix_lab.evaluation.report.page import render
from anonymix_lab.evaluation.report.photos import SheetRow
from anonymix_lab.evaluation.report.tables import as_csv, tables
from anonymix_lab.evaluation.scenarios import TITLES, Measured
from anonymix_lab.evaluation.schema import Report
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
    exchanged: dict[Path, str] = {}
    two_class = {part.scenario for part in measured.two_class}
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
        name = f"{entry.scenario}-{_NAME.sub('-', entry.matcher)}"
        wanted.add(f"{name}.csv")
        write_text(folder / "scores" / f"{name}.csv", stream.getvalue())
        if entry.scenario in two_class:  # in the others, what is mated ought not to match
            files = exchange_files(name, entry.scores, comparisons.same)
            exchanged |= {folder / "exchange" / path: text for path, text in files.items()}
    for stale in (folder / "scores").glob("*.csv"):
        if stale.name not in wanted and stale.name.startswith(tuple(TITLES)):
            stale.unlink()  # of an earlier run with other matchers: it would be taken for this one's
    for path, text in exchanged.items():
        write_text(path, text)
    for old in (folder / "exchange").rglob("*.*"):
        if old not in exchanged and old.name.startswith(tuple(TITLES)):
            old.unlink()
    made = tables(report)
    for name, rows in made.items():
        write_text(folder / "tables" / f"{name}.csv", as_csv(rows))
    write_text(folder / "tables" / "tables.json", json.dumps(made, indent=2) + "\n")
    write_text(folder / "metrics.json", report.model_dump_json(indent=2) + "\n")
    write_text(folder / "index.html", render(report, sheet))
