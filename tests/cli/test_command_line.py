"""The command line as a whole: help, start-up, errors and exit codes."""

from __future__ import annotations

import _thread
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import pytest
import typer

import anonymix_plugin
from anonymix_keystore import Keystore, KeystoreError
from anonymix_plugin import errors
from anonymix_plugin.cli import LazyCommand, _all_commands, app, main
from anonymix_plugin.cli.report import EXIT_KEYS, fault_of

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "cv2", "onnxruntime", "openvino", "PIL", "sqlite_utils", "cryptography", "pydantic")


def _spawn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `anonymix bench` raise."""

    def prepare(error: BaseException) -> None:
        def bench(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
            raise error

        monkeypatch.setattr("anonymix_lab.cli.bench.bench", bench)

    return prepare


# --- help and start-up ------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes(run) -> None:
    ended = run("--help")
    assert ended.code == 0
    for name in ("demo", "protect", "verify", "keys", "models", "bench", "measure", "train"):
        assert f" {name} " in ended.out
    assert "Exit codes: 0 all is well" in ended.out


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from anonymix_plugin.cli import main\n"
        "assert main(['--help']) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _spawn("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == "[]"
    # In seconds of the processor, so that a busy machine changes nothing.
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1


def test_the_module_runs_like_the_command() -> None:
    done = _spawn("-m", "anonymix_plugin", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"anonymix {anonymix_plugin.__version__}\n", "")


def test_without_a_command_the_help_is_shown(run) -> None:
    ended = run()
    assert ended.code == 2
    assert "Usage: anonymix" in ended.out + ended.err


@pytest.mark.parametrize("name", sorted(_all_commands()))
def test_every_command_has_help(run, name: str) -> None:
    ended = run(name, "--help")
    assert ended.code == 0
    assert f"Usage: anonymix {name} " in ended.out
    assert "install-completion" not in ended.out


def test_the_list_of_commands_says_what_the_commands_say(run) -> None:
    """Their one line is written twice, so that the list needs no imports."""
    for name in ("keys", "models"):
        assert _all_commands()[name].help.rstrip(".") in " ".join(run(name, "--help").out.split())


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("protct",), ("keys", "list", "--nonsense"), ("models", "pull", "--group"), ("--nonsense",)],
)
def test_a_mistyped_command_ends_with_2(run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert "Error" in ended.err


def test_a_mistyped_command_is_told_in_json_where_json_is_asked_for(run) -> None:
    ended = run("models", "list", "--json", "--nonsense")
    assert ended.code == 2
    assert ended.err == ""
    assert ended.json["error"]["code"] == "usage"
    assert "--nonsense" in ended.json["error"]["what"]
    assert ended.json["error"]["where"] == "anonymix models list"


def test_an_error_says_what_where_and_what_to_do(run, tmp_path: Path) -> None:
    ended = run("keys", "list")
    assert ended.code == 4
    assert ended.out == ""
    first, second = ended.err.splitlines()
    assert first == f"Error: {tmp_path / 'keystore.db'}: there is no keystore"
    assert second == f"What to do: make one with: anonymix keys init --keystore {tmp_path / 'keystore.db'}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("protect people -o out --enrol", "--subjects-from-folders, where each folder is a subject's"),
        ("protect a.jpg --subject zoe -o out", "--enrol), or issue a key: anonymix keys issue SUBJECT"),
        ("keys rotate zoe", "or issue a key: anonymix keys issue SUBJECT"),
        ("keys rotate alice --reason Breach", 'say "breach", or a reason without the word'),
        ("keys rotate --all --reason data-breach", 'say "breach", or a reason without the word'),
        ("keys change-unlock --second", "anonymix keys scope set SCOPE --references sealed"),
        ("keys forget zoe --yes", "look for the id: anonymix keys list"),
        ("keys rotate --all --report /dev/null/r.json", "a file is in the way of this folder"),
        ("protect lfw.bin --dataset person --enrol -o out", "there is no such file or folder"),
    ],
)
def test_a_natural_slip_is_told_with_the_way_out(run, store: Keystore, words: str, told: str) -> None:
    ended = run(*words.split())
    assert ended.code != 0
    assert told in " ".join(ended.err.split())


def test_a_wrong_passphrase_is_told_with_what_would_be_right(run, store: Keystore, monkeypatch) -> None:
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "swordfish and chops")
    assert "What to do: give the one that locks it" in run("keys", "list").err


def test_what_is_written_never_replaces_a_file_nor_fails_after_the_deed(run, store: Keystore, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    for words in ("keys audit -o", "keys backup"):
        assert "choose another path" in run(*words.split(), tmp_path / "there").err
    assert "anonymix keys backup" in run("keys", "restore", tmp_path / "there", "--keystore", tmp_path / "new.db").err
    for place in (tmp_path, tmp_path / "there" / "report.json"):
        assert run("keys", "rotate", "--all", "--report", place).code != 0
    assert store.current("alice").version == 1
    assert run("keys", "rotate", "--all", "--report", tmp_path / "new" / "report.json").code == 0
    assert json.loads((tmp_path / "new" / "report.json").read_text())["job"]["done"] == 2


def test_a_rotation_says_what_became_of_the_old_key(run, store: Keystore) -> None:
    said = run("keys", "rotate", "alice").out
    until = store.history("alice")[0].until
    assert until is not None
    assert said == f"alice now has version 2; version 1 is retired until {until:%Y-%m-%d}.\n"
    assert run("keys", "rotate", "alice", "--reason", "breach", "--yes").out.endswith("version 2 is compromised.\n")


def test_an_error_is_json_where_json_is_asked_for(run, tmp_path: Path) -> None:
    ended = run("keys", "list", "--json")
    assert ended.code == 4
    assert ended.err == ""
    assert ended.json == {
        "error": {
            "code": "store_missing",
            "what": "there is no keystore",
            "where": str(tmp_path / "keystore.db"),
            "fix": f"make one with: anonymix keys init --keystore {tmp_path / 'keystore.db'}",
        }
    }


def test_messages_are_text_and_no_markup(run, failing) -> None:
    failing(errors.NoFaceError("no face [bold]at all[/]", where="[red]photo[/red].jpg", fix="[b]look[/b]"))
    ended = run("bench")
    assert ended.err.splitlines() == [
        "Error: [red]photo[/red].jpg: no face [bold]at all[/]",
        "What to do: [b]look[/b]",
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("protect", "a.jpg", "--subject", "x", "--enrol", "-o", "out", "--mixer-weights", "PIPE"), 5),
        (
            (
                "protect",
                "a.jpg",
                "--subject",
                "x",
                "--enrol",
                "-o",
                "out",
                "--policy",
                "full",
                "--encoder-weights",
                "PIPE",
            ),
            5,
        ),
        (("evaluate", "pairs", "--data", "PIPE", "-o", "out"), 2),
        (("evaluate", "folder", "--data", "people", "-o", "out", "--requirements", "PIPE"), 2),
    ],
)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(
    run, store, weights, arguments: tuple[str, ...], code: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("PIPE")

    def waited(*_: object) -> None:
        raise AssertionError("the pipe is waited for")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(30)
    try:
        ended = run(*arguments)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert ended.code == code
    assert "PIPE" in ended.err
    assert "reinstall" not in ended.err


def test_a_descriptor_that_no_system_has_is_told(run, store) -> None:
    ended = run("keys", "list", "--passphrase-fd", "9" * 20)
    assert ended.code == 2
    assert "no such descriptor" in ended.err


def _kinds(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


@pytest.mark.parametrize("kind", [*_kinds(errors.AnonymixError), *_kinds(KeystoreError)])
def test_every_error_has_a_documented_exit_code(kind: type[Exception]) -> None:
    fault = fault_of(kind("what", where="where", fix="fix"))
    assert (fault.what, fault.where, fault.fix) == ("what", "where", "fix")
    assert re.fullmatch("[a-z_]+", fault.code)
    if issubclass(kind, KeystoreError):
        assert fault.exit_code == EXIT_KEYS
    assert f"\n| {fault.exit_code} | " in (ROOT / "docs" / "exit-codes.md").read_text()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bug_ends_with_70_and_tells_no_secret(run, failing, as_json: bool) -> None:
    failing(ValueError("the passphrase is swordfish"))
    ended = run("bench", *["--json"] * as_json)
    assert ended.code == 70
    text = ended.out if as_json else ended.err
    assert "ValueError" in text
    assert "report it" in text
    assert "swordfish" not in ended.out + ended.err
    assert "Traceback" not in ended.err


def test_a_bug_is_traced_where_that_is_asked_for(run, failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONYMIX_DEBUG", "1")
    failing(ZeroDivisionError("in the middle"))
    ended = run("bench")
    assert ended.code == 70
    assert "Traceback" in ended.err
    assert "in the middle" in ended.err


def test_a_missing_package_is_named(run, failing) -> None:
    failing(ModuleNotFoundError("No module named 'h5py'", name="h5py"))
    ended = run("bench")
    assert ended.code == 2
    assert "h5py" in ended.err
    assert "pip install" in ended.err


def test_what_the_system_refuses_is_told_with_the_path(run, failing) -> None:
    failing(PermissionError(13, "Permission denied", "/somewhere/figures.json"))
    ended = run("bench")
    assert ended.code == 6
    assert "/somewhere/figures.json" in ended.err
    assert "Permission denied" in ended.err


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_ends_with_130(run, failing, as_json: bool) -> None:
    failing(KeyboardInterrupt())
    ended = run("bench", *["--json"] * as_json)
    assert ended.code == 130
    assert "interrupted" in (ended.out if as_json else ended.err)
    assert "Traceback" not in ended.err


def test_sigterm_unwinds_and_leaves_the_handler_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def bench() -> None:
        try:
            # As if the signal had come in: a real one would end the tests where their process's
            # alternate stack is too small for it.
            _thread.interrupt_main(signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)

    monkeypatch.setattr("anonymix_lab.cli.bench.bench", bench)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["bench"])
    assert ended.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_stops_reading_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "anonymix_plugin", "--help"],
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_a_function_and_an_app_are_loaded_alike() -> None:
    group = LazyCommand("anonymix_plugin.cli.models:app", "", "").load("weights")
    command = LazyCommand("anonymix_plugin.cli.protect:protect", "", "").load("hide")
    assert (group.name, command.name) == ("weights", "hide")
    assert app.info.epilog is not None
