"""Cells of CSV tables that people may open in a spreadsheet, which takes texts that begin in certain ways for formulas.

OWASP ("CSV injection") advises to put an apostrophe in front of such texts. Here it can be undone, so that a program
gets every name back as it was: a text that has such an apostrophe of its own gets one more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_FORMULA: Final = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"  # the last four: full-width = + - @
# Where a cell begins for a spreadsheet that splits lines at semicolons or tabs, as it does in half of Europe.
_BEGINNING: Final = '((?:^|[;\t\r\n])[ "]*)'
_DANGEROUS: Final = re.compile(f"{_BEGINNING}('*)(?={_FORMULA})")
_ESCAPED: Final = re.compile(f"{_BEGINNING}'('*)(?={_FORMULA})")


def as_cells(values: Iterable[object]) -> list[object]:
    """A row for `csv.writer` whose texts no spreadsheet takes for formulas; numbers stay numbers."""
    return [_DANGEROUS.sub(r"\1'\2", value) if isinstance(value, str) else value for value in values]


def as_text(cell: str) -> str:
    """The text that a cell stands for: what `as_cells` added is taken away."""
    return _ESCAPED.sub(r"\1\2", cell)
