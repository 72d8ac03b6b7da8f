"""`anonymix keys`."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anonymix_keystore import (
    AnchorError,
    AnchorFile,
    Argon2Cost,
    ClockError,
    DamagedError,
    ForgetReceipt,
    InvalidRequestError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    LockedError,
    PassphraseUnlock,
    RolledBackError,
    StoreExistsError,
    StoreMissingError,
    UnlockUnavailableError,
    WrongPassphraseError,
)
from anonymix_plugin.cli.keys import app, default_keystore, open_keystore
from anonymix_plugin.errors import ConfigurationError, UsageError
from anonymix_plugin.unlocking import unlock_for, unlock_without_asking

SECRET = "swordfish and chips"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("ANONYMIX_", "VAULT_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", SECRET)
    monkeypatch.setenv("COLUMNS", "240")
    # The passphrase is stretched cheaply: what it costs is tested elsewhere.
    monkeypatch.setattr(Argon2Cost.__init__, "__defaults__", (8_192, 1, 1))
    return tmp_path / "home"


@pytest.fixture
def run() -> Callable[..., Any]:
    def call(*words: str, fails: type[BaseException] | None = None) -> Any:
        shown = CliRunner().invoke(app, list(words))
        if fails is not None:
            assert isinstance(shown.exception, fails), shown.output
            assert SECRET not in str(shown.exception)
            return shown
        assert shown.exit_code == 0, (shown.output, shown.exception)
        return json.loads(shown.stdout) if "--json" in words else shown.stdout

    return call


def test_a_store_is_made_where_the_home_says(run, home: Path) -> None:
    assert run("init", "--json") == {"keystore": str(home / "keystore.db"), "unlock": "passphrase"}
    assert default_keystore() == home / "keystore.db"
    assert home.stat().st_mode & 0o777 == 0o700
    run("init", fails=StoreExistsError)


def test_without_a_home_the_users_data_folder_is_used(monkeypatch) -> None:
    monkeypatch.delenv("ANONYMIX_HOME")
    monkeypatch.setattr(
        "anonymix_plugin.cli.keys._opening.platformdirs.user_data_path", lambda name: Path("/data") / name
    )
    assert default_keystore() == Path("/data/anonymix/keystore.db")


def test_the_store_can_be_named(run, tmp_path: Path, monkeypatch) -> None:
    run("init", "--keystore", str(tmp_path / "a.db"))
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "b.db"))
    assert run("init", "--json")["keystore"] == str(tmp_path / "b.db")
    with open_keystore() as store:
        assert store.path == tmp_path / "b.db"
    with open_keystore(tmp_path / "a.db") as store:
        assert store.path == tmp_path / "a.db"


def test_a_missing_store_says_how_to_make_one(run) -> None:
    assert "anonymix keys init" in str(run("list", fails=StoreMissingError).exception)


def test_the_passphrase_comes_from_a_file_descriptor_first(run, monkeypatch) -> None:
    run("init")
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "wrong")
    run("list", fails=WrongPassphraseError)
    reading, writing = os.pipe()
    os.write(writing, f"{SECRET}\nmore".encode())
    os.close(writing)
    assert run("list", "--json", "--passphrase-fd", str(reading)) == []
    os.close(reading)
    run("list", "--passphrase-fd", "9999", fails=UsageError)


def test_the_passphrase_is_asked_for_on_a_terminal_alone(run, monkeypatch) -> None:
    run("init")
    monkeypatch.delenv("ANONYMIX_PASSPHRASE")
    run("list", fails=UnlockUnavailableError)
    monkeypatch.setattr("anonymix_plugin.cli.keys._opening.on_terminal", lambda: True)
    asked: list[dict[str, Any]] = []

    def prompt(text: str, **options: Any) -> str:
        asked.append({"text": text, **options})
        return SECRET

    monkeypatch.setattr("anonymix_plugin.cli.keys._opening.typer.prompt", prompt)
    with open_keystore():
        pass
    assert asked == [{"text": "Passphrase", "hide_input": True, "confirmation_prompt": False, "err": True}]


def test_no_command_takes_a_secret_as_an_argument(run) -> None:
    from typer.main import get_command

    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            assert parameter.name not in {"passphrase", "password", "secret", "key"}, name


def test_the_life_of_a_key(run) -> None:
    run("init")
    assert run("issue", "alice", "--json") == {"subject": "alice", "scope": "default", "version": 1}
    assert run("rotate", "alice", "--json")["version"] == 2
    assert "retired" in run("retire", "alice", "--days", "3")
    states = [(item["version"], item["state"]) for item in run("show", "alice", "--json")]
    assert states == [(1, "retired"), (2, "retired")]
    run("revoke", "alice", fails=UsageError)
    assert run("revoke", "alice", "--yes", "--json")["destroyed"] == [1, 2]
    assert "no living key" in run("revoke", "alice", "--yes")
    shown = run("list")
    assert "alice" in shown
    assert "destroyed" in shown
    run("rotate", "alice", fails=KeyRevokedError)
    assert run("issue", "alice", "--scope", "b") == "Issued version 1 for alice.\n"
    assert [item["scope"] for item in run("list", "--scope", "b", "--json")] == ["b"]
    assert run("revoke", "alice", "--scope", "b", "--version", "1", "--yes") == "Destroyed version 1 of alice.\n"


def test_what_can_not_be_undone_is_confirmed(run, monkeypatch) -> None:
    run("init")
    run("issue", "alice")
    for words in (
        ("revoke", "alice"),
        ("forget", "alice"),
        ("rotate", "alice", "--reason", "breach"),
        ("rotate", "alice", "--grace-days", "0"),
        ("rotate", "--all", "--reason", "breach"),
    ):
        run(*words, fails=UsageError)
    monkeypatch.setattr("anonymix_plugin.cli.keys._opening.on_terminal", lambda: True)
    questions: list[str] = []
    monkeypatch.setattr("anonymix_plugin.cli.keys._output.typer.confirm", lambda text, **_: questions.append(text))
    run("rotate", "alice", "--reason", "breach")
    assert questions == ["Erase the old keys of alice for good?"]


def test_a_breach_leaves_a_work_list_and_a_report(run, tmp_path: Path) -> None:
    run("init")
    with open_keystore() as store:
        for name in ("alice", "bob"):
            store.issue(name)
            store.record_enrolment(
                name, adapter="dlib", collection="c", external_id=f"e-{name}", version=1, fingerprint="f"
            )
    shown = run("rotate", "--all", "--reason", "breach", "--yes", "--report", str(tmp_path / "r.json"))
    assert "dlib / c: delete 2, enrol 2" in shown
    assert json.loads((tmp_path / "r.json").read_text())["job"]["done"] == 2
    assert len(run("due", "--json")["work"]) == 2
    assert "e-alice" in run("due")
    report = run("rotate", "--all", "--scope", "default", "--older-than-days", "5", "--json")
    assert report["job"]["done"] == 0
    run("rotate", "--all", "--report", str(tmp_path / "r.txt"))
    assert (tmp_path / "r.txt").read_text().startswith("Rotation of keys")
    for words in (
        ("rotate",),
        ("rotate", "alice", "--all"),
        ("rotate", "--all", "--resume"),
        ("rotate", "alice", "--older-than-days", "1"),
        ("rotate", "--resume"),
    ):
        run(*words, fails=UsageError)


def test_an_interrupted_rotation_is_listed_and_resumed(run) -> None:
    run("init")

    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        raise StopError

    with open_keystore() as store:
        store.issue_many(f"s{number}" for number in range(6))
        with pytest.raises(StopError):
            store.rotate_all(batch=2, progress=stop)
    assert "To resume: job 1 (rotate), 2 keys done." in run("due")
    assert run("rotate", "--resume", "--json")["job"]["done"] == 6
    assert "No work is due" in run("due")
    assert run("rewrap", "--json")["done"] == 12


def test_forgetting_prints_what_is_still_to_delete(run) -> None:
    run("init")
    with open_keystore() as store:
        store.issue("alice")
        store.record_enrolment("alice", adapter="dlib", collection="c", external_id="e1", version=1, fingerprint="f")
    shown = run("forget", "alice", "--yes")
    assert "nothing is left in the store" in shown
    assert "dlib / c / e1" in shown
    assert run("forget", "--unused-days", "30", "--yes") == "Nobody is due.\n"
    run("issue", "bob")
    (receipt,) = run("forget", "bob", "--yes", "--json")
    assert receipt["clean"]
    for words in (("forget", "--yes"), ("forget", "a", "--unused-days", "3", "--yes")):
        run(*words, fails=UsageError)


def test_what_was_forgotten_is_told_though_a_later_step_fails(
    run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init", "--anchor", str(tmp_path / "anchor"))
    monkeypatch.setenv("ANONYMIX_ANCHOR", str(tmp_path / "anchor"))
    with Keystore.open(
        home / "keystore.db",
        PassphraseUnlock(SECRET),
        clock=lambda: time.time() - 100 * 86_400,
        accept_clock=True,
    ) as store:
        for name in ("alice", "bob", "carol"):
            store.issue(name)
            store.record_enrolment(
                name, adapter="dlib", collection="c", external_id=f"of {name}", version=1, fingerprint="f"
            )
    genuine = Keystore.forget
    done: list[str] = []

    def forget(store: Keystore, subject: str, *args: object, **options: object) -> ForgetReceipt:
        if done:
            (tmp_path / "anchor").rename(tmp_path / "away")
        done.append(subject)
        return genuine(store, subject, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Keystore, "forget", forget)
    result = run("forget", "--unused-days", "50", "--yes", "--accept-most", "--json", fails=AnchorError)
    told = [entry["external_id"] for receipt in json.loads(result.stdout) for entry in receipt["entries"]]
    assert told == [f"of {name}" for name in done]
    assert len(done) == 2


def test_status_counts_keys(run) -> None:
    run("init")
    assert "none" in run("status")
    run("issue", "alice")
    run("issue", "bob")
    run("revoke", "bob", "--yes")
    assert run("status", "--json")["keys"] == {"active": 1, "destroyed": 1}
    assert "passphrase" in run("status")


def test_status_tells_when_erased_bytes_are_still_in_the_log(run, home: Path) -> None:
    run("init")
    run("issue", "alice")
    assert run("status", "--json")["erased_bytes_in_log"] is False
    with Keystore.open(home / "keystore.db", PassphraseUnlock(SECRET)) as store:
        with contextlib.closing(sqlite3.connect(home / "keystore.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM keys").fetchall()
            store.revoke("alice")
            assert run("status", "--json")["erased_bytes_in_log"] is True
            assert "lets go" in run("status")
        assert run("status", "--json")["erased_bytes_in_log"] is False


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_init_names_all_files_that_are_in_its_way(run, home: Path, suffix: str) -> None:
    home.mkdir()
    (home / f"keystore.db{suffix}").touch()
    error = run("init", fails=StoreExistsError).exception
    assert all(str(home / f"keystore.db{name}") in error.fix for name in ("", "-wal", "-shm"))


def test_the_audit_trail_is_shown_exported_and_verified(run, tmp_path: Path) -> None:
    run("init")
    run("issue", "alice", "--reason", "hired")
    run("rotate", "--all")
    assert [line["action"] for line in run("audit", "--json")][:2] == ["create", "issue"]
    assert "hired" in run("audit")
    assert "create" not in run("audit", "--after", "1")
    exported = run("audit", "-o", str(tmp_path / "audit.jsonl"), "--json")
    assert exported["lines"] == 5
    shown = run("verify", "--export", str(tmp_path / "audit.jsonl"))
    assert "All is well." in shown
    assert "The export's 5 lines are this store's." in shown
    assert run("verify", "--json")["ok"]


def test_a_damaged_store_ends_verify_with_exit_code_4(run, home: Path) -> None:
    import sqlite3

    run("init")
    run("issue", "alice")
    with sqlite3.connect(home / "keystore.db") as db:
        db.execute("UPDATE heads SET latest = 7")
    db.close()
    shown = CliRunner().invoke(app, ["verify"])
    assert shown.exit_code == 4
    assert "damaged" in shown.stderr


def test_a_backup_is_restored_and_an_anchor_minds_the_rollback(run, home: Path, tmp_path: Path, monkeypatch) -> None:
    anchor = tmp_path / "anchor.db"
    assert str(anchor) in run("init", "--anchor", str(anchor))
    monkeypatch.setenv("ANONYMIX_ANCHOR", str(anchor))
    run("issue", "alice")
    run("issue", "bob")
    assert run("backup", str(tmp_path / "b"), "--json")["unlock"] == "passphrase"
    run("revoke", "alice", "--yes")
    run("restore", str(tmp_path / "b"), fails=StoreExistsError)
    (home / "keystore.db").unlink()
    run("restore", str(tmp_path / "b"))
    run("list", fails=RolledBackError)
    (home / "keystore.db").unlink()
    run("restore", str(tmp_path / "b"), "--accept-rollback", "the disk died")
    states = {item["subject"]: item["state"] for item in run("list", "--json")}
    assert states == {"alice": "destroyed", "bob": "active"}
    assert run("verify", "--json")["anchored"]


def test_a_backup_can_be_locked_by_a_key_file(run, home: Path, tmp_path: Path) -> None:
    KeyFileUnlock.generate(tmp_path / "k")
    run("init")
    run("backup", str(tmp_path / "b"), "--key-file", str(tmp_path / "k"))
    run("restore", str(tmp_path / "b"), "--keystore", str(tmp_path / "r.db"), fails=LockedError)
    run(
        "restore",
        str(tmp_path / "b"),
        "--key-file",
        str(tmp_path / "k"),
        "--keystore",
        str(tmp_path / "r.db"),
    )
    assert run("list", "--keystore", str(tmp_path / "r.db"), "--json") == []


def test_stores_are_locked_and_relocked_in_other_ways(run, tmp_path: Path, monkeypatch) -> None:
    key = tmp_path / "k"
    run("init", "--key-file", str(key))
    assert key.stat().st_mode & 0o777 == 0o600
    run("list", fails=UnlockUnavailableError)
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(key))
    run("issue", "alice")
    monkeypatch.setenv("ANONYMIX_NEW_PASSPHRASE", "another one")
    run("change-unlock")
    run("list", fails=WrongPassphraseError)
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "another one")
    monkeypatch.setenv("ANONYMIX_KEY", "ab" * 32)
    assert run("change-unlock", "--environment", "--json") == {"unlock": "environment"}
    assert [item["subject"] for item in run("list", "--json")] == ["alice"]
    reading, writing = os.pipe()
    os.write(writing, b"third\n")
    os.close(writing)
    run("change-unlock", "--new-passphrase-fd", str(reading))
    os.close(reading)
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "third")
    assert [item["subject"] for item in run("list", "--json")] == ["alice"]
    monkeypatch.delenv("ANONYMIX_NEW_PASSPHRASE")
    run("change-unlock", fails=UnlockUnavailableError)
    run("change-unlock", "--key-file", str(key), "--environment", fails=UsageError)
    run("init", "--keystore", str(tmp_path / "new.db"), "--environment", "--keyring", fails=UsageError)
    run("init", "--keystore", str(tmp_path / "new.db"), "--vault", "k", fails=UnlockUnavailableError)
    assert not (tmp_path / "new.db").exists()


def test_key_services_are_found_by_what_the_store_says(monkeypatch) -> None:
    from anonymix_plugin.cli.keys._opening import new_unlock

    monkeypatch.setenv("VAULT_ADDR", "https://vault.example")
    monkeypatch.setenv("VAULT_TOKEN", "t")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for kind, params in (
        ("vault-transit", {"key": "k", "mount": "m"}),
        ("aws-kms", {"key_id": "alias/k"}),
        ("keyring", {}),
    ):
        assert unlock_for(kind, params, bytes).kind == kind
    assert "alias/new" in repr(new_unlock(None, False, False, "alias/new"))
    with pytest.raises(UnlockUnavailableError):
        unlock_for("quantum", {}, bytes)


def test_bad_names_are_refused(run) -> None:
    run("init")
    run("issue", "", fails=InvalidRequestError)
    with open_keystore() as store:
        assert list(store.list()) == []
    assert isinstance(store, Keystore)


def test_an_old_file_is_accepted_and_a_store_is_tied_again_by_commands(
    run, home: Path, tmp_path: Path, monkeypatch
) -> None:
    anchor = tmp_path / "anchor.db"
    run("init", "--anchor", str(anchor))
    monkeypatch.setenv("ANONYMIX_ANCHOR", str(anchor))
    run("issue", "alice")
    old = (home / "keystore.db").read_bytes()
    run("revoke", "alice", "--yes")
    (home / "keystore.db").write_bytes(old)
    error = run("status", fails=RolledBackError).exception
    assert "anonymix keys status --accept-rollback" in error.fix
    run("status", "--accept-rollback", "the disk died")
    assert [item["state"] for item in run("list", "--json")] == ["destroyed"]
    anchor.unlink()
    assert "anonymix keys tie-anchor" in run("status", fails=AnchorError).exception.fix
    monkeypatch.delenv("ANONYMIX_ANCHOR")
    assert str(anchor) in run("tie-anchor", str(anchor))
    monkeypatch.setenv("ANONYMIX_ANCHOR", str(anchor))
    assert run("verify", "--json")["anchored"]
    assert run("tie-anchor", str(anchor), "--json") == {"anchor": str(anchor)}
    assert len(list(AnchorFile(anchor).revoked())) == 1


@pytest.fixture
def ahead(run, home: Path) -> Path:
    """A store that was changed once while the clock said 2037."""
    run("init")
    run("issue", "alice")
    with Keystore.open(home / "keystore.db", PassphraseUnlock(SECRET), clock=lambda: 2_130_000_000.0) as store:
        store.issue("bob")
    return home / "keystore.db"


@pytest.mark.parametrize(
    "words",
    [
        ["rotate", "alice", "--reason", "breach", "--yes"],
        ["rotate", "--all", "--reason", "breach", "--yes"],
        ["revoke", "alice", "--yes"],
        ["retire", "alice"],
        ["forget", "alice", "--yes"],
        ["forget", "--unused-days", "30", "--yes"],
        ["issue", "carol"],
        ["expire"],
        ["due"],
        ["rewrap"],
        ["change-unlock", "--key-file", "new.key"],
        ["tie-anchor", "anchor.db"],
        ["status"],
    ],
    ids=" ".join,
)
def test_every_command_that_changes_accepts_the_clock(
    run, ahead: Path, words: list[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if words[0] not in {"due", "status", "expire", "forget"}:
        assert "--accept-clock" in run(*words, fails=ClockError).exception.fix
        for made in ("new.key", "anchor.db"):
            (tmp_path / made).unlink(missing_ok=True)
    run(*words, "--accept-clock")


@pytest.mark.parametrize(
    "words",
    [
        ["rotate", "alice", "--grace-days", "1e300"],
        ["rotate", "--all", "--older-than-days", "inf"],
        ["retire", "alice", "--days", "1e9"],
        ["forget", "--unused-days", "1e300", "--yes"],
        ["due", "--unused-days", "1e18"],
    ],
    ids=" ".join,
)
def test_days_that_no_calendar_has_are_told(run, words: list[str]) -> None:
    run("init")
    run("issue", "alice")
    error = run(*words, fails=UsageError).exception
    assert error.where in words


def test_people_are_forgotten_by_date_unless_most_fall_due(run, home: Path) -> None:
    run("init")
    with Keystore.open(
        home / "keystore.db",
        PassphraseUnlock(SECRET),
        clock=lambda: time.time() - 100 * 86_400,
        accept_clock=True,
    ) as store:
        store.issue("gone")
    words = ("forget", "--unused-days", "50", "--yes")
    assert "--accept-most" in run(*words, fails=ClockError).exception.fix
    assert "Nobody" not in run(*words, "--accept-most")
    assert run("expire", "--json") == {"erased": 0}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\nsecond line\n"])
def test_a_passphrase_from_a_variable_is_what_the_descriptor_gives(
    run, home: Path, monkeypatch, tmp_path: Path, end: str
) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}{end}")
    with (tmp_path / "secret").open() as file:
        run("init", "--passphrase-fd", str(file.fileno()))
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", f"{SECRET}{end}")
    run("issue", "alice")
    unlock_without_asking(home / "keystore.db").key(Keystore.locked_by(home / "keystore.db")[1], {})
    monkeypatch.setenv("ANONYMIX_NEW_PASSPHRASE", f"another{end}")
    run("change-unlock")
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "another")
    run("list")
    monkeypatch.setenv("ANONYMIX_KEYSTORE", f"{home / 'keystore.db'}{end[:1]}")
    run("list")


def test_a_user_without_a_home_is_told_which_variable_to_set(run, monkeypatch) -> None:
    monkeypatch.delenv("ANONYMIX_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user whom nobody knows
    error = run("init", fails=ConfigurationError).exception
    assert error.fix == "set ANONYMIX_KEYSTORE to a path"


# --- references -------------------------------------------------------------------------------------


def test_references_are_switched_on_for_one_scope_and_told_what_they_cost(
    run, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("init")
    run("issue", "alice", "--scope", "door")
    run("issue", "alice")
    off = [{"scope": "default", "references": "off"}, {"scope": "door", "references": "off"}]
    assert run("scope", "list", "--json") == off
    refused = run("scope", "set", "door", "--references", "sealed", fails=UsageError)
    assert "32 numbers of each person" in str(refused.exception)
    run("scope", "set", "door", "--references", "sealed", "--yes", fails=UnlockUnavailableError)
    assert run("scope", "list", "--json") == off
    second = tmp_path / "second.key"
    made = run(
        *("scope", "set", "door", "--references", "sealed", "--yes", "--json"),
        *("--second-key-file", str(second), "--reason", "street photos"),
    )
    assert made == {"scope": "door", "references": "sealed", "second_secret": "key-file"}
    key = tmp_path / "backup.key"
    run("backup", str(tmp_path / "backup"), "--key-file", str(key))  # made as it is missing, like all key files
    assert key.stat().st_mode & 0o777 == 0o600
    run("backup", str(tmp_path / "backup 2"), "--key-file", str(key))
    assert second.stat().st_mode & 0o777 == 0o600
    assert run("status", "--json")["references_in"] == ["door"]
    assert "sealed" in run("scope", "list")
    assert "kept references already" in run("scope", "set", "door", "--references", "sealed", "--yes")
    again = ("scope", "set", "default", "--references", "sealed", "--yes")
    run(*again, "--second-key-file", str(second), fails=UsageError)
    assert "keeps references from now on" in run(*again)
    actions = [line["action"] for line in run("audit", "--json")]
    assert actions.count("enable-references") == 2
    assert actions.count("enable-originals") == 1

    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(second))
    with open_keystore(references_of="door") as store:
        key = store.current("alice", "door")
        store.references.keep(key, b"code", fingerprint="f", subspace="s")
    assert run("drop-reference", "alice", "--scope", "door", "--json")["erased"] == 1
    with open_keystore(references_of="door") as store:
        store.references.keep(key, b"code", fingerprint="f", subspace="s")
    run("scope", "set", "door", "--references", "off", fails=UsageError)
    run("scope", "set", "door", "--references", "off", "--yes", "--second-keyring", fails=UsageError)
    assert run("scope", "set", "door", "--references", "off", "--yes", "--json")["erased"] == 1
    assert run("status", "--json")["references_in"] == ["default"]


def test_the_second_secret_is_a_passphrase_unless_told_otherwise_and_can_be_exchanged(
    run, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run("init")
    monkeypatch.setenv("ANONYMIX_SECOND_PASSPHRASE", SECRET)
    on = ("scope", "set", "door", "--references", "sealed", "--yes")
    run(*on, fails=InvalidRequestError)  # the store's own secret is no second one
    monkeypatch.setenv("ANONYMIX_SECOND_PASSPHRASE", "another one")
    assert "give it in ANONYMIX_SECOND_PASSPHRASE where photos are protected" in run(*on)
    open_keystore(references_of="door").close()
    monkeypatch.setenv("ANONYMIX_SECOND_PASSPHRASE", "a wrong one")
    with pytest.raises(WrongPassphraseError):
        open_keystore(references_of="door")
    open_keystore(references_of="elsewhere").close()  # which keeps none, and needs no second secret
    monkeypatch.setenv("ANONYMIX_SECOND_PASSPHRASE", "another one")
    monkeypatch.setenv("ANONYMIX_SECOND_KEY", "7" * 64)
    changed = run("change-unlock", "--second", "--environment", "--json")
    assert changed == {"unlock": "environment"}
    monkeypatch.delenv("ANONYMIX_SECOND_PASSPHRASE")
    open_keystore(references_of="door").close()
    monkeypatch.delenv("ANONYMIX_SECOND_KEY")
    with pytest.raises(UnlockUnavailableError, match="ANONYMIX_SECOND_KEY"):
        open_keystore(references_of="door")


def test_a_damaged_store_is_left_by_a_backup_or_knowingly(run, home: Path, tmp_path: Path) -> None:
    run("init")
    run("issue", "alice")
    with open_keystore() as store:
        store.record_enrolment("alice", adapter="d", collection="c", external_id="a1", version=1, fingerprint="f")
    with contextlib.closing(sqlite3.connect(home / "keystore.db")) as db:
        db.execute("UPDATE enrolments SET detail = zeroblob(9)")
        db.commit()
    assert "accept-damage" in str(run("due", fails=DamagedError).exception)
    assert "accept-damage" in run("verify", fails=SystemExit).stdout
    told = run("forget", "alice", "--yes")
    assert "1 of these rows were damaged" in told
    assert "1 enrolments can't be named" in told
    run("accept-damage", "--reason", "a bad disk", fails=UsageError)
    assert run("accept-damage", "--reason", "a bad disk", "--yes", "--json")["erased"] == {}
    assert "All is well" in run("verify")


@pytest.fixture
def with_a_damaged_row(run, home: Path) -> None:
    """Alice's row is damaged; Bob's is sound, and his old entry is due."""
    run("init")
    run("issue", "alice")
    with open_keystore() as store:
        store.record_enrolment("alice", adapter="d", collection="c", external_id="a1", version=1, fingerprint="f")
    with contextlib.closing(sqlite3.connect(home / "keystore.db")) as db:
        db.execute("UPDATE heads SET alias = zeroblob(16)")
        db.commit()
    run("issue", "bob")
    with open_keystore() as store:
        store.record_enrolment("bob", adapter="d", collection="c", external_id="b1", version=1, fingerprint="f")
        store.rotate("bob")


TELL_OF_OTHERS = {
    "list": (["list"], "bob"),
    "status": (["status"], "1 active"),
    "due": (["due"], "b1"),
    "rotate": (["rotate", "--all"], "keys done        1"),
    "breach": (["rotate", "--all", "--reason", "breach", "--yes"], "keys done        1"),
    "rewrap": (["rewrap"], "2 keys done. 1 subjects have a damaged row and were left as they are."),
}


def test_status_counts_keys_though_a_scope_is_damaged(run, home: Path) -> None:
    run("init")
    run("issue", "bob", "--scope", "other")
    run("issue", "alice")
    with contextlib.closing(sqlite3.connect(home / "keystore.db")) as db:
        db.execute("UPDATE scopes SET mac = zeroblob(32) WHERE id = 1")
        db.commit()
    told = run("status", fails=DamagedError).stdout
    assert "1 active" in told
    assert "can't be told: rows are damaged" in told
    facts = json.loads(run("status", "--json", fails=SystemExit).stdout)
    assert (facts["keys"], facts["scopes"], facts["error"]["code"]) == ({"active": 1}, None, "damaged")


def test_a_damaged_job_hides_no_work_and_stops_no_rotation(run, home: Path) -> None:
    run("init")
    run("issue", "bob")
    with open_keystore() as store:
        store.record_enrolment("bob", adapter="d", collection="c", external_id="b1", version=1, fingerprint="f")
    run("rotate", "--all")
    with contextlib.closing(sqlite3.connect(home / "keystore.db")) as db:
        db.execute("UPDATE jobs SET done = 7")
        db.commit()
    assert "b1" in run("due", fails=DamagedError).stdout
    for words in ((), ("--reason", "breach", "--yes")):
        assert "keys done        1" in run("rotate", "--all", *words)


@pytest.mark.usefixtures("with_a_damaged_row")
@pytest.mark.parametrize("command", TELL_OF_OTHERS)
def test_a_damaged_row_stops_nobody_else_and_is_named(run, command: str) -> None:
    words, of_bob = TELL_OF_OTHERS[command]
    told = run(*words, fails=DamagedError)
    assert of_bob in told.stdout
    assert "subject 'alice' in scope 'default'" in str(told.exception)
    assert "revoke or forget them" in str(told.exception) or "forget them, delete the entries" in str(told.exception)
    run("forget", "alice", "--yes")
    run(*words)


@pytest.mark.usefixtures("with_a_damaged_row")
@pytest.mark.parametrize("command", TELL_OF_OTHERS)
def test_as_json_the_others_and_the_error_are_one_value(run, command: str) -> None:
    ended = run(*TELL_OF_OTHERS[command][0], "--json", fails=SystemExit)
    assert ended.exit_code == 4
    told = json.loads(ended.stdout)
    error = told.pop("error")
    assert error["code"] == "damaged"
    assert "alice" in error["what"]
    expected: dict[str, Callable[[], bool]] = {
        "list": lambda: [key["subject"] for key in told["keys"]] == ["bob"],
        "status": lambda: told["keys"] == {"active": 1},
        "due": lambda: [item["external_id"] for item in told["work"]] == ["b1"],
        "rotate": lambda: (told["job"]["done"], told["job"]["left"]) == (1, 1),
        "breach": lambda: (told["job"]["done"], told["job"]["headless"]) == (1, 1),
        "rewrap": lambda: (told["done"], told["left"]) == (2, 1),
    }
    assert expected[command]()


def test_what_no_listing_can_name_is_told_all_the_same(run, home: Path) -> None:
    run("init")
    run("issue", "alice")
    run("issue", "bob")
    with contextlib.closing(sqlite3.connect(home / "keystore.db")) as db:
        db.execute("DELETE FROM heads WHERE tag = (SELECT min(tag) FROM heads)")
        db.commit()
    told = run("rotate", "--all", fails=DamagedError)
    assert "1 subjects have a damaged row and were left as they are" in told.stdout
    assert "anonymix keys verify" in str(told.exception)
    assert "damaged:" in run("verify", fails=SystemExit).output
