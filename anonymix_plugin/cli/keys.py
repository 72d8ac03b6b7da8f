"""`anonymix keys`: look after the keystore."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from anonymix_keystore import (
    RETENTION,
    AnchorFile,
    AwsKms,
    EnvironmentUnlock,
    KeyFileUnlock,
    KeyInfo,
    KeyringUnlock,
    Keystore,
    KmsUnlock,
    PassphraseUnlock,
    Progress,
    RotationReason,
    RotationReport,
    StoreExistsError,
    StoreMissingError,
    Unlock,
    UnlockUnavailableError,
    VaultTransit,
)
from anonymix_plugin.errors import UsageError
from anonymix_plugin.unlocking import PASSPHRASE_VARIABLE, unlock_for

__all__ = ["app", "default_keystore", "open_keystore"]

app = typer.Typer(no_args_is_help=True, help="Make, show and look after the keys of subjects.")

ANCHOR_VARIABLE = "ANONYMIX_ANCHOR"
NEW_PASSPHRASE_VARIABLE = "ANONYMIX_NEW_PASSPHRASE"  # noqa: S105 - a name
_MOST_PASSPHRASE_BYTES = 65_536
_MOST_FACTS = 300
_EXIT_KEYSTORE = 4

_Store = Annotated[
    Path | None,
    typer.Option(
        "--keystore",
        envvar="ANONYMIX_KEYSTORE",
        metavar="PATH",
        help="The keystore's file.",
        show_default=False,
    ),
]
_Descriptor = Annotated[
    int | None,
    typer.Option(
        "--passphrase-fd",
        metavar="N",
        min=0,
        help=f"Read the passphrase from this file descriptor; otherwise {PASSPHRASE_VARIABLE} or a prompt.",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before doing what can't be undone.")]
_Scope = Annotated[str, typer.Option(help="The application or gallery that the key belongs to.")]
_ScopeFilter = Annotated[str | None, typer.Option("--scope", help="This scope alone.", show_default=False)]
_Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="The subject's id in your application.")]
_Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]


# --- opening ----------------------------------------------------------------------------------------


def default_keystore() -> Path:
    """Where the keystore lies unless told otherwise: ``ANONYMIX_HOME``, or the user's data folder."""
    home = os.environ.get("ANONYMIX_HOME")
    folder = Path(home) if home else platformdirs.user_data_path("anonymix")
    return folder / "keystore.db"


def open_keystore(
    path: Path | None = None, passphrase_fd: int | None = None, *, accept_rollback: str = ""
) -> Keystore:
    """Open the keystore, asking for what it is locked up with.

    A passphrase comes from the file descriptor, else from ``ANONYMIX_PASSPHRASE``, else from a
    prompt; a key file is named by ``ANONYMIX_KEYFILE``; other ways find their secret themselves.
    Where ``ANONYMIX_ANCHOR`` names an anchor file, the store is compared with it.

    Args:
        path: The file; by default ``ANONYMIX_KEYSTORE``, else ``default_keystore()``.
        passphrase_fd: File descriptor with the passphrase on its first line.
        accept_rollback: A reason to take an old file as the current one.

    Raises:
        KeystoreError: It is missing, can't be unlocked, or is damaged.
        UsageError: The file descriptor can't be read.
    """
    place = _place(path)
    try:
        kind, params = Keystore.locked_by(place)
    except StoreMissingError as error:
        raise StoreMissingError(
            error.what, where=error.where, fix="make one with: anonymix keys init"
        ) from None
    unlock = unlock_for(kind, params, lambda: _passphrase(passphrase_fd))
    return Keystore.open(place, unlock, anchor=_anchor(), accept_rollback=accept_rollback)


def _anchor() -> AnchorFile | None:
    named = os.environ.get(ANCHOR_VARIABLE)
    return AnchorFile(named) if named else None


def _place(path: Path | None) -> Path:
    if path is not None:
        return path
    named = os.environ.get("ANONYMIX_KEYSTORE")
    return Path(named) if named else default_keystore()


def _passphrase(descriptor: int | None, *, prompt: str = "Passphrase", confirm: bool = False) -> bytes:
    if descriptor is not None:
        return _read_line(descriptor)
    # In bytes, so that a passphrase is the same however the terminal decodes it.
    text = os.environ.get(PASSPHRASE_VARIABLE)
    if text:
        return os.fsencode(text)
    return _asked(prompt, confirm=confirm)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _asked(prompt: str, *, confirm: bool) -> bytes:
    if not _on_terminal():
        raise UnlockUnavailableError(
            "no passphrase, and no terminal to ask on", fix=f"use --passphrase-fd or {PASSPHRASE_VARIABLE}"
        )
    typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def _read_line(descriptor: int) -> bytes:
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            line = file.readline(_MOST_PASSPHRASE_BYTES)
    except OSError as error:
        raise UsageError(
            f"can't read the passphrase: {error.strerror}", where=f"--passphrase-fd {descriptor}"
        ) from None
    return line.rstrip(b"\r\n")


# --- output -----------------------------------------------------------------------------------------


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _described(info: KeyInfo) -> dict[str, object]:
    return {
        "subject": info.subject,
        "scope": info.scope,
        "kind": "subject" if info.subject else "gallery",
        "version": info.version,
        "state": info.state.value,
        "created": info.created.isoformat(),
        "until": info.until.isoformat() if info.until else None,
        "ended": info.ended.isoformat() if info.ended else None,
        "alias": info.alias,
    }


_COLOURS = {"active": "green", "retired": "yellow", "compromised": "bold red", "destroyed": "dim"}


def _print_keys(infos: Iterable[KeyInfo], as_json: bool) -> None:
    if as_json:
        _print_json([_described(info) for info in infos])
        return
    table = Table("subject", "scope", "version", "state", "created", "until", "ended")
    for info in infos:
        state = info.state.value
        dates = (
            f"{moment:%Y-%m-%d %H:%M}" if moment else "" for moment in (info.created, info.until, info.ended)
        )
        table.add_row(
            escape(info.subject) or "[italic](gallery)",
            escape(info.scope),
            str(info.version),
            f"[{_COLOURS[state]}]{state}",
            *dates,
        )
    Console().print(table)


def _say(as_json: bool, sentence: str, **facts: object) -> None:
    if as_json:
        _print_json(facts)
    else:
        typer.echo(sentence)


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not _on_terminal():
        raise UsageError(f"{question} Nobody is there to answer", fix="say --yes")
    typer.confirm(question, abort=True, err=True)


# --- commands ---------------------------------------------------------------------------------------


@app.command("init")
def init(
    *,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Lock by this key file (made if it is missing).", show_default=False),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="Lock by the variable ANONYMIX_KEY.")
    ] = False,
    keyring: Annotated[bool, typer.Option("--keyring", help="Lock by the system's keyring.")] = False,
    aws_kms: Annotated[
        str | None,
        typer.Option("--aws-kms", metavar="KEY_ID", help="Lock by an AWS KMS key.", show_default=False),
    ] = None,
    vault: Annotated[
        str | None,
        typer.Option("--vault", metavar="KEY", help="Lock by a Vault transit key.", show_default=False),
    ] = None,
    anchor: Annotated[
        Path | None,
        typer.Option("--anchor", help="Make an anchor here and tie the store to it.", show_default=False),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Make a new keystore; locked by a passphrase unless told otherwise."""
    place = _place(keystore)
    if place.exists():
        raise StoreExistsError("there is already a file here", where=str(place))
    unlock = _new_unlock(key_file, environment, keyring, aws_kms, vault)
    if unlock is None:
        unlock = PassphraseUnlock(_passphrase(passphrase_fd, prompt="New passphrase", confirm=True))
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    Keystore.create(place, unlock, anchor=AnchorFile.create(anchor) if anchor else None).close()
    tied = f" Set {ANCHOR_VARIABLE}={anchor} from now on." if anchor else ""
    _say(as_json, f"Made {place}, locked by {unlock.kind}.{tied}", keystore=str(place), unlock=unlock.kind)


@app.command("status")
def status(keystore: _Store = None, passphrase_fd: _Descriptor = None, as_json: _Json = False) -> None:
    """Show how many keys there are and how the store is locked."""
    kind, _ = Keystore.locked_by(_place(keystore))
    with open_keystore(keystore, passphrase_fd) as store:
        states: dict[str, int] = {}
        for info in store.list():
            states[info.state.value] = states.get(info.state.value, 0) + 1
        facts: dict[str, object] = {
            "keystore": str(store.path),
            "unlock": kind,
            "epoch": store.epoch,
            "scopes": list(store.scopes()),
            "keys": states,
        }
    if as_json:
        _print_json(facts)
        return
    table = Table(show_header=False)
    for name, value in facts.items():
        shown = value
        if isinstance(value, dict):
            shown = ", ".join(f"{count} {state}" for state, count in value.items()) or "none"
        elif isinstance(value, list):
            shown = ", ".join(value) or "none"
        table.add_row(name, escape(str(shown)))
    Console().print(table)


@app.command("list")
def list_keys(
    scope: _ScopeFilter = None,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """List the latest key of every subject."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos = sorted(store.list(scope), key=lambda info: (info.scope, info.subject))
    _print_keys(infos, as_json)


@app.command("show")
def show(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Show all versions of a subject's key (never its material)."""
    with open_keystore(keystore, passphrase_fd) as store:
        infos = store.history(subject, scope)
    _print_keys(infos, as_json)


@app.command("issue")
def issue(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    reason: _Reason = "",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Issue a key to a subject who has no active one."""
    with open_keystore(keystore, passphrase_fd) as store:
        key = store.issue(subject, scope, reason=reason)
    _say(
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
        typer.Option(
            "--older-than-days", min=0, help="With --all: keys of at least this age.", show_default=False
        ),
    ] = None,
    reason: _Reason = RotationReason.ROUTINE.value,
    grace_days: Annotated[
        float | None,
        typer.Option("--grace-days", min=0, help="Days that probes may use the old key.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="With --all: write the report here, too (.json or text).", show_default=False),
    ] = None,
    yes: _Yes = False,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Replace the key of a subject, or of all; with --reason breach old keys are erased at once."""
    if sum((subject is not None, everybody, resume)) != 1:
        raise UsageError("name a subject, or say --all or --resume")
    if subject is not None and (older_than_days is not None or report is not None):
        raise UsageError("--older-than-days and --report go with --all")
    if not resume and (reason == RotationReason.BREACH or grace_days == 0):
        whose = "all subjects" if subject is None else subject
        _confirm(yes, f"Erase the old keys of {whose} for good?")
    grace = None if grace_days is None else timedelta(days=grace_days)
    with open_keystore(keystore, passphrase_fd) as store:
        if subject is not None:
            key = store.rotate(subject, scope or "default", reason=reason, grace=grace)
            facts = {"subject": key.subject, "scope": key.scope, "version": key.version}
            _say(as_json, f"{key.subject} now has version {key.version}.", **facts)
            return
        with _progress("Rotating keys") as show:
            if resume:
                done = _resumed(store, show)
            else:
                age = None if older_than_days is None else timedelta(days=older_than_days)
                done = store.rotate_all(
                    scope=scope, older_than=age, reason=reason, grace=grace, progress=show
                )
    if report is not None:
        report.write_text(done.to_json() if report.suffix == ".json" else done.to_text() + "\n")
    typer.echo(done.to_json() if as_json else done.to_text())


def _resumed(store: Keystore, show: Callable[[Progress], None]) -> RotationReport:
    job = store.resume(progress=show)
    if job is None:
        raise UsageError("no job was interrupted")
    return store.report(job.job)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[Progress], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda step: bar.update(task, completed=step.seen, total=step.total)


@app.command("revoke")
def revoke(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    version: Annotated[int | None, typer.Option(help="This version alone.", show_default=False)] = None,
    reason: _Reason = "",
    yes: _Yes = False,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Destroy a subject's keys at once and for good."""
    _confirm(yes, f"Destroy the keys of {subject} for good?")
    with open_keystore(keystore, passphrase_fd) as store:
        versions = store.revoke(subject, scope, version=version, reason=reason)
    numbers = ", ".join(str(number) for number in versions)
    sentence = f"Destroyed version {numbers} of {subject}." if versions else f"{subject} had no living key."
    _say(as_json, sentence, subject=subject, scope=scope, destroyed=list(versions))


@app.command("retire")
def retire(
    subject: _Subject,
    *,
    scope: _Scope = "default",
    days: Annotated[float, typer.Option(min=0, help="Days that probes may still use the key.")] = 30,
    reason: _Reason = "",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Retire a subject's active key: for probes alone, until a date."""
    until = datetime.now(UTC) + timedelta(days=days)
    with open_keystore(keystore, passphrase_fd) as store:
        version = store.retire(subject, scope, until=until, reason=reason)
    facts = {"subject": subject, "scope": scope, "version": version, "until": until.isoformat()}
    _say(
        as_json,
        f"Version {version} of {subject} is retired; probes may use it until {until:%Y-%m-%d}.",
        **facts,
    )


@app.command("forget")
def forget(
    subject: Annotated[str | None, typer.Argument(metavar="[SUBJECT]", show_default=False)] = None,
    *,
    unused_days: Annotated[
        float | None,
        typer.Option(
            "--unused-days", min=1, help="Forget all who were not seen for so long.", show_default=False
        ),
    ] = None,
    scope: _ScopeFilter = None,
    reason: _Reason = "",
    yes: _Yes = False,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Erase everything about a person and print the receipt: the entries it names remain in back ends."""
    if (subject is None) == (unused_days is None):
        raise UsageError("name a subject, or say --unused-days")
    whom = f"all who were not seen for {unused_days:g} days" if subject is None else subject
    _confirm(yes, f"Erase everything about {whom} for good?")
    with open_keystore(keystore, passphrase_fd) as store:
        if subject is not None:
            receipts = [store.forget(subject, scope, reason=reason)]
        else:
            limit = timedelta(days=unused_days or 0)
            receipts = list(store.forget_unused(limit, scope, reason=reason or "retention"))
    if as_json:
        _print_json([{**asdict(receipt), "clean": receipt.clean} for receipt in receipts])
        return
    for receipt in receipts:
        left = (
            "nothing is left in the store"
            if receipt.clean
            else "traces are left: close all readers and retry"
        )
        typer.echo(
            f"Erased {receipt.keys} keys, {receipt.enrolments} enrolments and"
            f" {receipt.originals} originals; {left}."
        )
        typer.echo(f"Attested by audit line {receipt.epoch} ({receipt.code}).")
        for item in receipt.entries:
            typer.echo(f"Still to delete: {item.adapter} / {item.collection} / {item.external_id}")
    if not receipts:
        typer.echo("Nobody is due.")


@app.command("due")
def due(
    scope: _ScopeFilter = None,
    *,
    fingerprint: Annotated[
        str | None, typer.Option(help="The mixer's fingerprint in use.", show_default=False)
    ] = None,
    unused_days: Annotated[
        float, typer.Option("--unused-days", min=1, help="Retention limit in days since the last use.")
    ] = RETENTION.days,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """List what is due: entries to delete, subjects to enrol anew or to forget, jobs to resume."""
    with open_keystore(keystore, passphrase_fd) as store:
        work = list(store.due(scope, fingerprint=fingerprint))
        unused = list(store.unused_since(timedelta(days=unused_days), scope))
        jobs = [job for job in store.jobs() if job.finished is None]
    if as_json:
        _print_json(
            {
                "work": [asdict(item) for item in work],
                "unused": [asdict(item) for item in unused],
                "unfinished_jobs": [asdict(job) for job in jobs],
            }
        )
        return
    table = Table("subject", "scope", "back end", "collection", "entry", "key", "delete", "enrol", "why")
    for item in work:
        marks = ("yes" if mark else "" for mark in (item.delete, item.enrol))
        names = (item.subject, item.scope, item.adapter, item.collection, item.external_id)
        key = f"{item.version} → {item.current_version or 'none'}"
        table.add_row(*map(escape, names), key, *marks, item.why)
    Console().print(table if work else "No work is due in back ends.")
    for use in unused:
        typer.echo(f"To forget: {use.subject} in {use.scope}, last used {use.used}.")
    for job in jobs:
        typer.echo(f"To resume: job {job.job} ({job.kind}), {job.done} keys done.")


@app.command("audit")
def audit(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Export with chain codes to this file.", show_default=False),
    ] = None,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only lines after this number.")] = 0,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Show or export the audit trail."""
    with open_keystore(keystore, passphrase_fd) as store:
        if output is not None:
            with output.open("x") as file:
                count = store.export_audit(file)
            _say(as_json, f"Exported {count} lines to {output}.", lines=count, output=str(output))
            return
        lines = list(store.audit(after))
    if as_json:
        _print_json(lines)
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
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Check every row, every key, the audit trail and the anchor; exit code 4 if anything is wrong."""
    with open_keystore(keystore, passphrase_fd) as store:
        found = store.verify()
        lines = None
        if export is not None:
            with export.open() as file:
                lines = store.check_audit_export(file)
    if as_json:
        _print_json({**asdict(found), "ok": found.ok, "exported_lines": lines})
    else:
        typer.echo(
            f"{found.rows} rows, {found.keys} living keys, {found.lines} audit lines, epoch {found.epoch}."
        )
        if lines is not None:
            typer.echo(f"The export's {lines} lines are this store's.")
        if not found.anchored:
            typer.echo("No anchor was compared: an old copy of the whole file could not be told.")
        for finding in found.findings:
            typer.echo(f"{finding.code}: {finding.what}", err=True)
        typer.echo("All is well." if found.ok else "The store is damaged: restore a backup.")
    if not found.ok:
        raise typer.Exit(_EXIT_KEYSTORE)


@app.command("rewrap")
def rewrap(
    *,
    reason: _Reason = "",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Wrap all keys anew under the next wrapping key; resumes an interrupted job."""
    with open_keystore(keystore, passphrase_fd) as store, _progress("Re-wrapping keys") as show:
        job = store.resume(progress=show) or store.rewrap_all(reason=reason, progress=show)
    _say(as_json, f"Job {job.job} ({job.kind}): {job.done} keys done.", **asdict(job))


@app.command("backup")
def backup(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to make.")],
    *,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Lock the backup by this key file.", show_default=False),
    ] = None,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Write an encrypted backup, locked by a key file or by the passphrase."""
    unlock: Unlock
    with open_keystore(keystore, passphrase_fd) as store:
        if key_file is not None:
            unlock = KeyFileUnlock(key_file)
        else:
            unlock = PassphraseUnlock(_passphrase(None, prompt="Passphrase of the backup", confirm=True))
        info = store.backup(output, unlock)
    _say(
        as_json,
        f"Wrote {output} (epoch {info.epoch}), locked by {info.unlock}.",
        **asdict(info),
        file=str(output),
    )


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    *,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="What the backup is locked by.", show_default=False)
    ] = None,
    accept_rollback: Annotated[
        str,
        typer.Option(help="With an anchor: the reason to go on from this older state.", show_default=False),
    ] = "",
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Put the store from a backup in place, where there must be none."""
    place = _place(keystore)
    unlock = KeyFileUnlock(key_file) if key_file else PassphraseUnlock(_passphrase(passphrase_fd))
    info = Keystore.restore(source, place, unlock)
    if accept_rollback:
        open_keystore(place, None, accept_rollback=accept_rollback).close()
    _say(as_json, f"Restored {place} (epoch {info.epoch}).", **asdict(info), keystore=str(place))


@app.command("change-unlock")
def change_unlock(
    *,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="Lock by this key file (made if it is missing).", show_default=False),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="Lock by the variable ANONYMIX_KEY.")
    ] = False,
    keyring: Annotated[bool, typer.Option("--keyring", help="Lock by the system's keyring.")] = False,
    aws_kms: Annotated[
        str | None,
        typer.Option("--aws-kms", metavar="KEY_ID", help="Lock by an AWS KMS key.", show_default=False),
    ] = None,
    vault: Annotated[
        str | None,
        typer.Option("--vault", metavar="KEY", help="Lock by a Vault transit key.", show_default=False),
    ] = None,
    new_passphrase_fd: Annotated[
        int | None,
        typer.Option(
            "--new-passphrase-fd",
            metavar="N",
            min=0,
            help="Read the new passphrase here.",
            show_default=False,
        ),
    ] = None,
    keystore: _Store = None,
    passphrase_fd: _Descriptor = None,
    as_json: _Json = False,
) -> None:
    """Lock the store up in another way, by a new passphrase unless told otherwise."""
    with open_keystore(keystore, passphrase_fd) as store:
        unlock = _new_unlock(key_file, environment, keyring, aws_kms, vault)
        if unlock is None:
            if new_passphrase_fd is None and os.environ.get(NEW_PASSPHRASE_VARIABLE):
                text = os.fsencode(os.environ[NEW_PASSPHRASE_VARIABLE])
            elif new_passphrase_fd is not None:
                text = _read_line(new_passphrase_fd)
            else:
                text = _asked("New passphrase", confirm=True)
            unlock = PassphraseUnlock(text)
        store.change_unlock(unlock)
    _say(as_json, f"The store is locked by {unlock.kind} now.", unlock=unlock.kind)


def _new_unlock(
    key_file: Path | None,
    environment: bool,
    keyring: bool,
    aws_kms: str | None = None,
    vault: str | None = None,
) -> Unlock | None:
    """The unlock that options name, or ``None`` for a passphrase."""
    if sum((key_file is not None, environment, keyring, aws_kms is not None, vault is not None)) > 1:
        raise UsageError("a keystore is locked in one way", fix="choose one of the options")
    if key_file is not None:
        return KeyFileUnlock(key_file) if key_file.exists() else KeyFileUnlock.generate(key_file)
    if environment:
        return EnvironmentUnlock()
    if keyring:
        return KeyringUnlock().generate()
    if aws_kms is not None:
        return KmsUnlock(AwsKms(aws_kms))
    return None if vault is None else KmsUnlock(VaultTransit(vault))
