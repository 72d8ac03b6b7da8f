"""Whose pairs lie in a folder: pictures that another generator drew would teach the wrong thing, unseen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import write_bytes
from anonymix_plugin.generator import Generator

_NOTE: Final = "pairs.json"


def begin_pairs(folder: Path, generator: Generator, seed: int) -> None:
    """Write down who draws the pairs of a folder, or see that it is who began them.

    A folder of pairs without a note, as earlier revisions left, is taken as it is.

    Raises:
        UsageError: Another generator or another series began them.
    """
    about = {"generator": generator.weights_hash(), "seed": seed}
    if (folder / _NOTE).exists():
        _compare(folder, about)
    elif not (folder / "000").exists():
        write_bytes(folder / _NOTE, json.dumps(about).encode())


def need_pairs(folder: Path, count: int, generator: Generator | None = None) -> None:
    """See that a folder holds so many pairs, before seconds or hours go into reading them.

    Args:
        folder: Where they lie.
        count: How many are read.
        generator: Who must have drawn them; None asks nobody.

    Raises:
        UsageError: One is missing, or another generator drew them.
    """
    from anonymix_lab.training.pairs import pair_path

    if generator is not None:
        _compare(folder, {"generator": generator.weights_hash()})
    if (folder / "embeddings.npz").exists():  # the pictures may be elsewhere then
        return
    for number in range(count):
        if not pair_path(folder, number).exists():
            raise UsageError(
                f"pair {number} of {count} is missing",
                where=str(folder),
                fix="draw them: anonymix train pairs, with the same --pairs and --count; or give a smaller --count",
            )


def _compare(folder: Path, about: Mapping[str, object]) -> None:
    try:
        known = json.loads((folder / _NOTE).read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        known = {}
    wrong = [name for name, value in about.items() if not isinstance(known, dict) or known.get(name) != value]
    if wrong:
        raise UsageError(
            f"the pairs in this folder were drawn by another {' and another '.join(wrong)}",
            where=str(folder),
            fix="name another folder: --pairs DIR, for train pairs and for all that read them",
        )
