"""A spreadsheet takes no cell of ours for a formula, and a program gets back every text."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anonymix_lab.evaluation.report.tables import as_csv
from anonymix_plugin.csv_cells import as_cells, as_text

TEXTS = st.text(alphabet=st.sampled_from("=+-@\t\r\n;'\" a,\uff1d\uff20"), max_size=8) | st.text(max_size=20)


@given(TEXTS)
@example("\r=")
@example("'\t;'\n@")
@example("'=")
def test_a_text_comes_back_as_it_was_and_begins_no_cell_as_a_formula(text: str) -> None:
    (cell,) = as_cells([text])
    assert isinstance(cell, str)
    assert as_text(cell) == text
    for part in cell.replace("\t", ";").replace("\r", ";").replace("\n", ";").split(";"):
        assert not part.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=3))
@example([["\0=", "\ufeff=", "\u00a0=", "'\n\"="], [""]])
def test_a_table_that_is_written_and_read_again_has_every_text(rows: list[list[str]]) -> None:
    rows = [[text.encode("utf-8", "replace").decode() for text in row] for row in rows]  # no half of a pair
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(map(as_cells, rows))
    stream.seek(0)
    assert [[as_text(cell) for cell in row] for row in csv.reader(stream)] == rows


@pytest.mark.parametrize("text", ["alice", "O'Neil", "'s-Gravenhage", "a=b", "mail@host", "", "1-2"])
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert as_cells([text, 0.5, -1, None]) == [text, 0.5, -1, None]


def test_a_group_of_people_that_is_called_like_a_formula_is_none_in_a_report() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([{"group": "=HYPERLINK(1)", "fmr": -0.5}])))
    assert row == {"group": "'=HYPERLINK(1)", "fmr": "-0.5"}
