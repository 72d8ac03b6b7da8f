"""Bulk work: many photos through several processes, block by block, in a way that survives any interruption.

`protect_in_bulk` is the job. A driver holds the keystore and hands blocks of rows to workers, which are spawned
processes with a mixer each. The driver writes faces and ledger; a block is in the ledger whole or not at all.
"""

from anonymix_plugin.bulk._driver import Progress, protect_in_bulk, rehearse
from anonymix_plugin.bulk._ledger import LEDGER, OUTCOMES, Ledger
from anonymix_plugin.bulk._table import rows_of_table
from anonymix_plugin.bulk._values import BulkError, Figures, Row, Summary

__all__ = [
    "LEDGER",
    "OUTCOMES",
    "BulkError",
    "Figures",
    "Ledger",
    "Progress",
    "Row",
    "Summary",
    "protect_in_bulk",
    "rehearse",
    "rows_of_table",
]
