"""Processes for tests: the imports are done once, and each start takes a moment."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["anonymix_plugin.cli.keys", "anonymix_plugin.keyservice.serving", "bulk_stub"])
