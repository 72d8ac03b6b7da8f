"""Reports that an auditor can read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container
from dataclasses import asdict, dataclass

from anonymix_keystore import _enrolments, _jobs
from anonymix_keystore._core import Core
from anonymix_keystore._errors import DamagedError
from anonymix_keystore._jobs import JobInfo


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What is still to be done in one collection of a back end.

    Attributes:
        adapter: Name of the adapter.
        collection: The collection.
        delete: Entries to delete.
        enrol: Subjects to enrol again.
    """

    adapter: str
    collection: str
    delete: int
    enrol: int


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What a job did and what it leaves to do.

    Attributes:
        job: The job.
        store: Id of the store, hex.
        epoch: Number of the last audit line as of the report.
        head: Chain code of that line, hex; it attests all lines before it.
        work: What is still to be done in back ends.
        damaged: Enrolment records that can't be read, since they or their keys are damaged: back ends may
            hold their entries.
    """

    job: JobInfo
    store: str
    epoch: int
    head: str
    work: tuple[OpenWork, ...]
    damaged: int = 0

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2, default=str)

    def to_text(self) -> str:
        """The report as text."""
        job = self.job
        what = "Rotation of keys" if job.kind == _jobs.ROTATE else "Re-wrapping of keys"
        lines = [
            f"{what}, job {job.job} of store {self.store}",
            f"  reason           {job.reason or '-'}",
            f"  scope            {job.scope or 'all'}",
            f"  started          {job.started}",
            f"  finished         {job.finished or 'not yet: it can be resumed'}",
            f"  keys done        {job.done}",
        ]
        if job.old_state:
            lines.append(f"  old keys are now {job.old_state}")
        lines.append(f"  audit line       {self.epoch} ({self.head})")
        if job.headless:
            lines.append(
                f"{job.headless} subjects have a damaged row: their keys are erased, and no new ones were issued."
                " `anonymix keys list` names them: forget them, and enrol them again."
            )
        if job.left:
            lines.append(
                f"{job.left} subjects have a damaged row and were left as they are. `anonymix keys list` names them:"
                " revoke or forget them, and enrol them again; or restore a backup with the store's anchor."
            )
        lines.append("Still to do in back ends:" if self.work else "Nothing is left to do in back ends.")
        lines += [
            f"  {item.adapter} / {item.collection}: delete {item.delete}, enrol {item.enrol}" for item in self.work
        ]
        if self.damaged:
            lines.append(f"{self.damaged} enrolment records are damaged: look for their entries in the back ends.")
        return "\n".join(lines)


def report(core: Core, number: int, fingerprints: Container[str] | None) -> RotationReport:
    """Report on a job."""
    job = _jobs.info(core, number)
    delete: Counter[tuple[str, str]] = Counter()
    enrol: Counter[tuple[str, str]] = Counter()
    damaged: list[DamagedError] = []
    work = _enrolments.walk(core, scope=job.scope, fingerprints=fingerprints, due=True, damaged=damaged.append)
    for item in work:
        place = (item.adapter, item.collection)
        delete[place] += item.delete
        enrol[place] += item.enrol
    header = core.header()
    return RotationReport(
        job,
        core.keys.store_id.hex(),
        header.epoch,
        header.head.hex(),
        tuple(OpenWork(*place, delete[place], enrol[place]) for place in sorted(delete)),
        len(damaged),
    )
