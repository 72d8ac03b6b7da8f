"""Bulk work: many photos through several processes, block by block, in a way that survives any interruption.

`protect_in_bulk` is the job. A driver holds the keystore and hands blocks of rows to workers, which are spawned
processes with a mixer each. The driver writes faces and ledger; a block is in the ledger whole or not at all.
"""

from anonymix_plugin.bulk._actors import Cluster
from anonymix_plugin.bulk._driver import (
    Progress,
    Work,
    draw_in_bulk,
    protect_in_bulk,
    rehearse,
)
from anonymix_plugin.bulk._ledger import LEDGER, OUTCOMES, Ledger, ParquetLedger
from anonymix_plugin.bulk._photos import PhotoStore, photo_store
from anonymix_plugin.bulk._places import is_address, local_path
from anonymix_plugin.bulk._sealed import BlockKeys
from anonymix_plugin.bulk._table import count_rows, is_table, rows_at, rows_of_table
from anonymix_plugin.bulk._values import Block, BulkError, Fault, Figures, Mixer, Result, Row, Summary
from anonymix_plugin.bulk._worker import Worker

__all__ = [
    "LEDGER",
    "OUTCOMES",
    "Block",
    "BlockKeys",
    "BulkError",
    "Cluster",
    "Fault",
    "Figures",
    "Ledger",
    "Mixer",
    "ParquetLedger",
    "PhotoStore",
    "Progress",
    "Result",
    "Row",
    "Summary",
    "Work",
    "Worker",
    "count_rows",
    "draw_in_bulk",
    "is_address",
    "is_table",
    "local_path",
    "photo_store",
    "protect_in_bulk",
    "rehearse",
    "rows_at",
    "rows_of_table",
]
