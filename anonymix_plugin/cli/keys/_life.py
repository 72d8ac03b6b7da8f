"""Commands for the life of keys: issue, show, rotate, retire, revoke."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from anonymix_keystore import Keystore, KeystoreError, Progress, RotationReason, RotationReport, SubjectKey
from anonymix_plugin.cli.keys._app import (
    ClockOption,
    DescriptorOption,
    JsonOption,
    ReasonOption,
    ScopeFilter,
    ScopeOption,
    StoreOption,
    SubjectArgument,
    YesOption,
    app,
    days_of,
)
from anonymix_plugin.cli.keys._opening import open_keystore
from anonymix_plugin.cli.keys._output import confirm, end_with, left_out, print_keys, progress_bar, say, taken
from anonymix_plugin.errors import UsageError
from anonymix_plugin.files import make_folder, require_regular, write_text


@app.command("list")
def list_keys(
    scope: ScopeFilter = None,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest key of every subject."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos, damage = taken(store.list(scope))
    print_keys(sorted(infos, key=lambda info: (info.scope, info.subject)), as_json, damage)


@app.command("show")
def show(
    subject: SubjectArgument,
    *,
    scope: ScopeOption = "default",
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all versions of a subject's key (never its material)."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos = store.history(subject, scope)
    print_keys(infos, as_json)


@app.command("issue")
def issue(
    subject: SubjectArgument,
    *,
    scope: ScopeOption = "default",
    reason: ReasonOption = "",
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue a key to a subject who has no active one."""
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        key = store.issue(subject, scope, reason=reason)
    say(
        as_json,
        f"Issued version {key.version} for {key.subject}.",
        subject=key.subject,
        scope=key.scope,
        version=key.version,
    )


@app.command("rotate")
def rotate(
    subject: Annotated[str | None, typer.Argument(metavar="[SUBJECT]", show_default=False)] = None,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="All subjects and galleries.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --all.")] = False,
    scope: Annotated[
        str | None, typer.Option(help="The scope; all of them with --all.", show_default="default")
    ] = None,
    older_than_days: Annotated[
        float | None,
        typer.Option("--older-than-days", min=0, help="With --all: keys of at least this age.", show_default=False),
    ] = None,
    reason: ReasonOption = RotationReason.ROUTINE.value,
    grace_days: Annotated[
        float | None,
        typer.Option("--grace-days", min=0, help="Days that probes may use the old key.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="With --all: write the report here, too (.json or text).", show_default=False),
    ] = None,
    yes: YesOption = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace the key of a subject, or of all; with --reason breach old keys are erased at once."""
    if sum((subject is not None, everybody, resume)) != 1:
        raise UsageError("name a subject, or say --all or --resume")
    if subject is not None and (older_than_days is not None or report is not None):
        raise UsageError("--older-than-days and --report go with --all")
    if not resume and (reason == RotationReason.BREACH or grace_days == 0):
        whose = "all subjects" if subject is None else subject
        confirm(yes, f"Erase the old keys of {whose} for good?")
    if report is not None:  # before anything is done
        make_folder(report.parent)
        require_regular(report)
    grace, age = days_of(grace_days, "--grace-days"), days_of(older_than_days, "--older-than-days")
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        if subject is not None:
            key = store.rotate(subject, scope or "default", reason=reason, grace=grace)
            facts = {"subject": key.subject, "scope": key.scope, "version": key.version}
            say(as_json, f"{key.subject} now has version {key.version}{_before(store, key)}.", **facts)
            return
        with progress_bar("Rotating keys") as show:
            if resume:
                done = _resumed(store, show)
            else:
                done = store.rotate_all(scope=scope, older_than=age, reason=reason, grace=grace, progress=show)
        damage = left_out(store, done.job)
    if damage is None or not as_json:
        typer.echo(done.to_json() if as_json else done.to_text())
    if report is not None:
        write_text(report, done.to_json() if report.suffix == ".json" else done.to_text() + "\n")
    if damage is not None:
        end_with(damage, as_json, json.loads(done.to_json()))


def _before(store: Keystore, key: SubjectKey) -> str:
    """What became of the version before a key, in words; none where its row is damaged."""
    with suppress(KeystoreError):
        old = store.history(key.subject, key.scope)[-2]
        return f"; version {old.version} is {old.state}" + (f" until {old.until:%Y-%m-%d}" if old.until else "")
    return ""


def _resumed(store: Keystore, show: Callable[[Progress], None]) -> RotationReport:
    job = store.resume(progress=show)
    if job is None:
        raise UsageError("no job was interrupted")
    return store.report(job.job)


@app.command("revoke")
def revoke(
    subject: SubjectArgument,
    *,
    scope: ScopeOption = "default",
    version: Annotated[int | None, typer.Option(help="This version alone.", show_default=False)] = None,
    reason: ReasonOption = "",
    yes: YesOption = False,
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Destroy a subject's keys at once and for good."""
    confirm(yes, f"Destroy the keys of {subject} for good?")
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        versions = store.revoke(subject, scope, version=version, reason=reason)
    numbers = ", ".join(str(number) for number in versions)
    sentence = f"Destroyed version {numbers} of {subject}." if versions else f"{subject} had no living key."
    say(as_json, sentence, subject=subject, scope=scope, destroyed=list(versions))


@app.command("retire")
def retire(
    subject: SubjectArgument,
    *,
    scope: ScopeOption = "default",
    days: Annotated[float, typer.Option(min=0, help="Days that probes may still use the key.")] = 30,
    reason: ReasonOption = "",
    accept_clock: ClockOption = False,
    keystore: StoreOption = None,
    passphrase_fd: DescriptorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retire a subject's active key: for probes alone, until a date."""
    until = datetime.now(UTC) + days_of(days, "--days")
    with open_keystore(keystore, passphrase_fd, accept_clock=accept_clock) as store:
        version = store.retire(subject, scope, until=until, reason=reason)
    facts = {"subject": subject, "scope": scope, "version": version, "until": until.isoformat()}
    say(
        as_json,
        f"Version {version} of {subject} is retired; probes may use it until {until:%Y-%m-%d}.",
        **facts,
    )
