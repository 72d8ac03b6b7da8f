"""Commands that look after people and the store: forget, due, audit, verify, rewrap."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anonymix_keystore import RETENTION, ForgetReceipt, JobInfo, Keystore, KeystoreError, Verification
from anonymix_plugin.cli.keys._app import (
    ClockOption,
    DescriptorOption,
    JsonOption,
    ReasonOption,
    ScopeFilter,
    StoreOption,
    YesOption,
    app,
    days_of,
)
from anonymix_plugin.cli.keys._opening import open_keystore
from anonymix_plugin.cli.keys._output import confirm, end_with, left_out, progress_bar, say, taken
from anonymix_plugin.cli.report import print_json
from anonymix_plugin.errors import OutputError, UsageError

_MOST_FACTS = 300
_EXIT_KEYSTORE = 4


@app.command("forget")
def forget(
    subject: Annotated[str | None, typer.Argument(metavar="[SUBJECT]", show_default=False)] = None,
    *,
    unused_days: Annotated[
        float | None,
        typer.Option("--unused-days", min=1, help="Forget all who were not seen for so long.", show_default=False),
    ] = None,
    accept_most: Annotated[
        bool,
        typer.Option("--accept-most", help="With --unused-days: go on though most people fall due at once."),
    ] = False,
    scope: ScopeFilter = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase everything about a person and print the receipt: the entries it names remain in back ends."""
    if (subject is None) == (unused_days is None):
        raise UsageError("name a subject, or say --unused-days")
    whom = f"all who were not seen for {unused_days:g} days" if subject is None else subject
    confirm(yes, f"Erase everything about {whom} for good?")
    receipts: list[ForgetReceipt] = []
    try:
        with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
            if subject is not None:
                receipts.append(store.forget(subject, scope, reason=reason))
            else:
                limit = days_of(unused_days or 0, "--unused-days")
                due = store.forget_unused(limit, scope, reason=reason or "retention", accept_most=accept_most)
                receipts.extend(due)
    except BaseException as error:  # what was erased until then is told, since nothing else lists it
        if isinstance(error, KeystoreError) and error.receipt is not None:
            receipts.append(error.receipt)
        if receipts:
            _print_receipts(receipts, as_json)
        raise
    _print_receipts(receipts, as_json)


def _print_receipts(receipts: Sequence[ForgetReceipt], as_json: bool) -> None:
    if as_json:
        print_json([{**asdict(receipt), "clean": receipt.clean} for receipt in receipts])
        return
    for receipt in receipts:
        left = "nothing is left in the store" if receipt.clean else "traces are left: close all readers and retry"
        typer.echo(
            f"Erased {receipt.keys} keys, {receipt.enrolments} enrolments, {receipt.originals} originals and"
            f" {receipt.references} references; {left}."
        )
        if receipt.damaged:
            typer.echo(f"{receipt.damaged} of these rows were damaged: anonymix keys verify tells what else is.")
        if receipt.unlisted:
            typer.echo(
                f"{receipt.unlisted} enrolments can't be named, since their records were damaged: look for the"
                " person in the back ends."
            )
        typer.echo(f"Attested by audit line {receipt.epoch} ({receipt.code}).")
        for item in receipt.entries:
            typer.echo(f"Still to delete: {item.adapter} / {item.collection} / {item.external_id}")
    if not receipts:
        typer.echo("Nobody is due.")


def _to_resume(store: Keystore) -> Iterator[JobInfo]:
    yield from (job for job in store.jobs() if job.finished is None)


@app.command("due")
def due(
    scope: ScopeFilter = None,
    *,
    fingerprint: Annotated[str | None, typer.Option(help="The mixer's fingerprint in use.", show_default=False)] = None,
    guided_fingerprint: Annotated[
        str | None,
        typer.Option(help="The fingerprint of its guided faces.", show_default=False),
    ] = None,
    unused_days: Annotated[
        float, typer.Option("--unused-days", min=1, help="Retention limit in days since the last use.")
    ] = RETENTION.days,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what is due: entries to delete, subjects to enrol again or to forget, jobs to resume."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        work, damaged = taken(store.due(scope, fingerprint=fingerprint, guided_fingerprint=guided_fingerprint))
        unused, hidden = taken(store.unused_since(days_of(unused_days, "--unused-days"), scope))
        jobs, doubtful = taken(_to_resume(store))
    damage = damaged or hidden or doubtful  # the first one tells of entries as well
    if as_json:
        facts = {
            "work": [asdict(item) for item in work],
            "unused": [asdict(item) for item in unused],
            "unfinished_jobs": [asdict(job) for job in jobs],
        }
        if damage is not None:
            end_with(damage, as_json, facts)
        print_json(facts)
        return
    table = Table("subject", "scope", "back end", "collection", "entry", "key", "delete", "enrol", "why")
    for item in work:
        marks = ("yes" if mark else "" for mark in (item.delete, item.enrol))
        names = (item.subject, item.scope, item.adapter, item.collection, item.external_id)
        key = f"{item.version} → {item.current_version or 'none'}"
        table.add_row(*map(escape, names), key, *marks, item.why)
    Console().print(table if work else f"No{' other' if damaged else ''} work is due in back ends.")
    for use in unused:
        typer.echo(f"To forget: {use.subject} in {use.scope}, last used {use.used}.")
    for job in jobs:
        typer.echo(f"To resume: job {job.job} ({job.kind}), {job.done} keys done.")
    if damage is not None:
        raise damage


@app.command("expire")
def expire(
    *,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Erase the retired keys whose date has passed; they are refused already."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        count = store.expire()
    say(as_json, f"Erased {count} keys.", erased=count)


@app.command("audit")
def audit(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Export with chain codes to this file.", show_default=False),
    ] = None,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only lines after this number.")] = 0,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or export the audit trail."""
    with open_keystore(keystore, passphrase_fd) as store:
        if output is not None:
            try:
                with output.open("x") as file:
                    count = store.export_audit(file)
            except FileExistsError:
                what = "there is already a file here"
                raise OutputError(what, where=str(output), fix="choose another path") from None
            say(as_json, f"Exported {count} lines to {output}.", lines=count, output=str(output))
            return
        lines = list(store.audit(after))
    if as_json:
        print_json(lines)
        return
    table = Table("line", "time (UTC)", "actor", "action", "facts")
    for line in lines:
        seq, action, actor = (str(line.pop(name)) for name in ("seq", "action", "actor"))
        moment = datetime.fromtimestamp(line.pop("time"), UTC)
        facts = json.dumps(line, sort_keys=True)
        shown = facts if len(facts) <= _MOST_FACTS else facts[:_MOST_FACTS] + "…"
        table.add_row(seq, f"{moment:%Y-%m-%d %H:%M:%S}", escape(actor), action, escape(shown))
    Console().print(table)


@app.command("verify")
def verify(
    export: Annotated[
        Path | None, typer.Option(help="Check this exported audit trail, too.", show_default=False)
    ] = None,
    *,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every row, every key, the audit trail and the anchor; exit code 4 if anything is wrong."""
    with open_keystore(keystore, passphrase_fd) as store:
        found = store.verify()
        lines = None
        if export is not None:
            with export.open() as file:
                lines = store.check_audit_export(file)
    if as_json:
        print_json({**asdict(found), "ok": found.ok, "exported_lines": lines})
    else:
        typer.echo(f"{found.rows} rows, {found.keys} living keys, {found.lines} audit lines, epoch {found.epoch}.")
        if lines is not None:
            typer.echo(f"The export's {lines} lines are this store's.")
        if not found.anchored:
            typer.echo("No anchor was compared: an old copy of the whole file could not be told.")
        for finding in found.findings:
            typer.echo(f"{finding.code}: {finding.what}", err=True)
        typer.echo(_advice(found))
    if not found.ok:
        raise typer.Exit(_EXIT_KEYSTORE)


def _advice(found: Verification) -> str:
    if found.ok:
        return "All is well."
    codes = {finding.code for finding in found.findings}
    if codes <= {"damaged", "truncated", "wrong_key", "wrong_context"}:
        return (
            "The store is damaged: restore a backup, and open it with the store's anchor; or, if you know what"
            " happened and what was lost, go on with what is left: anonymix keys accept-damage --reason TEXT"
        )
    return "Something is wrong: see above, and keep the file."


@app.command("accept-damage")
def accept_damage(
    *,
    reason: Annotated[str, typer.Option(help="For the audit trail.", show_default=False)],
    yes: YesOption = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a damaged store: erase originals, references and records that fail authentication.

    What was removed from the file stays removed, and verify no longer tells of it. Keys are never given up
    so: revoke or forget their subjects first.
    """
    confirm(yes, "Erase what fails authentication, and take all that is left as right?")
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        erased = store.accept_damage(reason)
    what = ", ".join(f"{count} of {table}" for table, count in erased.items()) or "nothing"
    say(as_json, f"Erased {what}; what is left counts as right from now on.", erased=erased)


@app.command("rewrap")
def rewrap(
    *,
    reason: ReasonOption = "",
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wrap all keys again under the next wrapping key; resumes an interrupted job."""
    with (
        open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store,
        progress_bar("Re-wrapping keys") as show,
    ):
        job = store.resume(progress=show) or store.rewrap_all(reason=reason, progress=show)
        damage = left_out(store, job)
    if damage is None or not as_json:
        left = f" {job.left} subjects have a damaged row and were left as they are." if job.left else ""
        say(as_json, f"Job {job.job} ({job.kind}): {job.done} keys done.{left}", **asdict(job))
    if damage is not None:
        end_with(damage, as_json, asdict(job))
