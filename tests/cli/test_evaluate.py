"""`anonymix evaluate` from the command line: whole on a few real photos, and told what is wrong."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymix_lab.evaluation.report.files import write_report
from anonymix_lab.evaluation.report.tables import tables
from anonymix_lab.evaluation.scenarios import Measured
from anonymix_lab.evaluation.schema import Figure, Report
from anonymix_lab.metrics.error_rates import eer
from anonymix_plugin.cli import main

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def made(portraits: Path, model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on six people of the London set, by one recogniser, with all that needs no long drawing."""
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    folder = tmp_path_factory.mktemp("evaluation")
    people = sorted({path.name[:3] for path in portraits.glob("*_neutral.jpg")})[:4]
    with (folder / "pairs.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["first", "second", "same"])
        writer.writerows((f"{one}_neutral.jpg", f"{one}_smiling.jpg", 1) for one in people)
        writer.writerow([f"{people[0]}_neutral.jpg", f"{people[1]}_smiling.jpg", 0])
        writer.writerow([f"{people[2]}_neutral.jpg", f"{people[3]}_smiling.jpg", 0])
        writer.writerow(["gone.jpg", f"{people[3]}_smiling.jpg", 0])
    with (folder / "groups.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["person", "group"])
        writer.writerows((f"{one}_neutral.jpg", "all") for one in people)
    arguments = [
        *("evaluate", "pairs", "--data", folder / "pairs.csv", "--root", portraits, "-o", folder / "out"),
        *("--cache", folder / "cache", "--matchers", "sface", "--baselines", "blur", "--baseline-pairs", "6"),
        *(
            "--attacks",
            "direct,with-key,linkage,references",
            "--replicates",
            "20",
            "--groups",
            folder / "groups.csv",
        ),
        *("--require", "psr>=.5", "--require", "eer-unprotected<=.2"),
    ]
    (folder / "code").write_text(str(main([str(argument) for argument in arguments])))
    return folder


def test_it_ends_well_and_its_json_meets_the_schema(made: Path) -> None:
    assert (made / "code").read_text() == "0"
    report = Report.model_validate_json((made / "out" / "metrics.json").read_text())
    assert report.protocol.people == 4
    assert {notice.kind: notice.count for notice in report.protocol.notices} == {"missing_photo": 1}
    assert {part.scenario for part in report.two_class} == {
        *("unprotected", "own-key", "claimed", "one-key", "guided", "guided-one-key", "references")
    }
    assert [part.holds for part in report.requirements] == [True, True]
    assert {part.name for part in report.protections} == {"anonymix", "blur"}
    assert report.groups
    assert report.traits
    assert report.provenance.fingerprint
    assert report.provenance.command[0] == "anonymix"


def test_no_number_of_the_json_is_not_a_number(made: Path) -> None:
    text = (made / "out" / "metrics.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    json.loads(text)


def test_the_page_is_whole_and_asks_nobody_for_anything(made: Path) -> None:
    page = (made / "out" / "index.html").read_text()
    assert page.count("<svg") == page.count("</svg>") > 6
    assert "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.findall(r"https?://", page)
    assert "<img" not in page  # no photos unless somebody says so
    assert "var(--ink)" in page
    assert "#0102" not in page
    assert "Blur" in page
    assert "psr&gt;=.5" in page
    for person in ("001_neutral", "002_neutral"):
        assert person not in page


def test_scores_stand_in_tables_without_names(made: Path) -> None:
    with (made / "out" / "scores" / "one-key-sface.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert {row["same"] for row in rows} == {"0", "1"}
    assert all(-1 <= float(row["score"]) <= 1 for row in rows)
    assert "neutral" not in (made / "out" / "scores" / "unprotected-sface.csv").read_text()


def test_exported_scores_give_the_figures_of_the_report(made: Path) -> None:
    report = Report.model_validate_json((made / "out" / "metrics.json").read_text())
    out = made / "out" / "exchange"
    for part in report.two_class:
        name = f"{part.scenario}-{part.matcher}"
        rows = np.loadtxt(out / "bob" / f"{name}.txt")
        genuine, impostor = rows[rows[:, 0] == 1, 1], rows[rows[:, 0] == -1, 1]
        assert (len(genuine), len(impostor)) == (part.genuine, part.impostor)
        assert eer(genuine, impostor) == pytest.approx(part.eer.value, abs=1e-12)
        assert np.array_equal(np.loadtxt(out / "pyeer" / "genuine" / f"{name}.txt", ndmin=1), genuine)
        assert np.array_equal(np.loadtxt(out / "pyeer" / "impostor" / f"{name}.txt", ndmin=1), impostor)
        assert (out / "det" / f"{name}.csv").read_text().startswith("threshold,fmr,fnmr\n")
    assert len(list(out.rglob("*.*"))) == 4 * len(report.two_class)


def test_tables_hold_the_figures_of_the_report(made: Path) -> None:
    report = Report.model_validate_json((made / "out" / "metrics.json").read_text())
    out = made / "out" / "tables"
    told = json.loads((out / "tables.json").read_text())
    assert told == tables(report)
    for name, rows in told.items():
        with (out / f"{name}.csv").open() as stream:
            read = list(csv.DictReader(stream))
        assert [list(row) for row in read] == [list(row) for row in rows]
        assert [list(row.values()) for row in read] == [
            ["" if value is None else str(value) for value in row.values()] for row in rows
        ]
    accuracy = {row["scenario"]: row for row in told["30136-accuracy"]}
    assert set(accuracy) >= {"own-key", "claimed", "one-key"}
    plain, one = (next(p for p in report.two_class if p.scenario == name) for name in ("unprotected", "one-key"))
    assert plain.eer.value is not None
    assert one.eer.value is not None
    assert accuracy["one-key"]["eer_degradation"] == one.eer.value - plain.eer.value
    assert {row["attack"] for row in told["30136-irreversibility"]} >= {"direct", "with-key"}
    assert {row["scenario"] for row in told["30136-renewability"]} == {part.scenario for part in report.one_class}
    failures = {(row["what"], row["reason"]): row for row in told["19795-1-failures"]}
    assert failures["photos as they are", "any"]["failure_rate"] == 0
    for row in told["19795-1-error-rates"]:
        assert row["people"] == 4
        assert row["fmr_by_rule_of_3"] == 3 / row["impostor_comparisons"]


def test_groups_are_set_against_their_geometric_mean_and_failures_told_apart(made: Path) -> None:
    report = Report.model_validate_json((made / "out" / "metrics.json").read_text())
    first = next(part for part in report.groups if part.scenario == "one-key")
    figures = [Figure(value=value, low=None, high=None) for value in (0.02, 0.08, 0.0)]
    groups = tuple(first.model_copy(update={"label": f"{n}", "fmr": figures[n], "fnmr": figures[2]}) for n in (0, 1))
    rows = tables(report.model_copy(update={"groups": groups}))["19795-10-groups"]
    assert [row["fmr_to_geometric_mean"] for row in rows] == [pytest.approx(0.5), pytest.approx(2)]
    assert [row["fnmr_to_geometric_mean"] for row in rows] == [None, None]
    part = next(part for part in report.two_class if part.points)
    point = part.points[0].model_copy(update={"fnmr": Figure(value=0.25, low=None, high=None)})
    failed = part.model_copy(update={"genuine": 40, "failed_genuine": 4, "points": (point,)})
    (row,) = tables(report.model_copy(update={"two_class": (failed,)}))["19795-1-error-rates"]
    assert row["fnmr_of_answers"] == pytest.approx(6 / 36)


def test_files_of_an_earlier_run_with_other_matchers_go(made: Path) -> None:
    folder = made / "again"
    report = Report.model_validate_json((made / "out" / "metrics.json").read_text())
    for name in ("scores/own-key-facenet.csv", "exchange/bob/own-key-facenet.txt", "exchange/bob/of-mine.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    write_report(folder, report, Measured((), (), (), ()))
    assert [path.name for path in folder.rglob("*.txt")] == ["of-mine.txt"]
    assert not list((folder / "scores").iterdir())


def test_bad_calls_are_refused_before_anything_is_loaded(run: Run, tmp_path: Path) -> None:
    base = ("evaluate", "folder", "--data", tmp_path)
    for more, message in (
        (("--require", "speed<=1"), "no such metric"),
        (("--require", "eer<.1"), "no requirement"),
        (("--attacks", "magic"), "no 'magic'"),
        (("--baselines", "masks"), "no 'masks'"),
        (("--matchers", " , "), "no matcher"),
        (("--shared-keys", "0"), "attacks need faces under one key"),
        (("--groups", tmp_path / "gone.csv"), "groups can't be read"),
        (("--exclude", tmp_path / "gone.txt"), "list of people can't be read"),
        (("--root", tmp_path), "--root is for"),
        ((), "no photos in sub-folders"),
    ):
        ended = run(*base, "-o", tmp_path / "out", *more)
        assert ended.code == 2, message
        assert message in ended.err
        assert "Traceback" not in ended.err


def test_bad_calls_are_told_in_json(run: Run, tmp_path: Path) -> None:
    ended = run("evaluate", "lfw", "--data", tmp_path, "-o", tmp_path / "out", "--json")
    assert ended.code == 2
    assert ended.json["error"]["code"] == "usage"


def test_one_photo_per_person_is_told(run: Run, tmp_path: Path) -> None:
    for person in ("a", "b"):
        (tmp_path / "people" / person).mkdir(parents=True)
        (tmp_path / "people" / person / "1.jpg").write_bytes(person.encode())
    ended = run("evaluate", "folder", "--data", tmp_path / "people", "-o", tmp_path / "out")
    assert ended.code == 2
    assert "of none of the 2 people there are two photos" in ended.err
