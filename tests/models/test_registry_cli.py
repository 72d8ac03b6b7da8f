"""`anonymix models`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from anonymix_plugin.cli.models import app
from anonymix_plugin.errors import UsageError
from anonymix_plugin.models import REGISTRY, locate


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, list(words))


def test_the_list_shows_licences_and_restrictions(run):
    shown = run("list")
    assert shown.exit_code == 0
    for name, item in REGISTRY.items():
        assert name in shown.stdout
        assert item.restrictions.split(" ")[0] in shown.stdout
    assert run("list").stdout == shown.stdout


def test_the_list_as_json_holds_every_pinned_hash(run, index):
    index.add("toy", {"a.bin": b"aa"})
    listed = {item["name"]: item for item in json.loads(run("list", "--json").stdout)}
    assert set(listed) == set(REGISTRY)
    assert listed["yunet"]["files"][0]["sha256"] == REGISTRY["yunet"].files[0].sha256
    assert listed["toy"]["here"] == "no"
    assert listed["toy"]["restrictions"] == "Only for toys."


def test_pull_fetches_and_shows_the_restrictions_of_use(run, index):
    index.add("toy", {"a.bin": b"aa"})
    shown = run("pull", "toy")
    assert shown.exit_code == 0
    assert "fetched" in shown.stdout
    assert "Only for toys." in shown.stdout
    assert json.loads(run("pull", "toy", "--json").stdout) == [
        {"name": "toy", "status": "present", "folder": str(index.home / "models" / "toy")}
    ]
    assert "yes" in next(line for line in run("list").stdout.splitlines() if " toy " in line)


def test_pull_takes_names_or_a_group_or_all_but_not_two_of_them(run):
    for words in (["toy", "--all"], ["--all", "--group", "core"], ["toy", "--group", "core"]):
        assert isinstance(run("pull", *words).exception, UsageError)
    assert "core, evaluation, optional" in str(run("pull", "--group", "best").exception)


def test_pull_of_a_group_asks_for_that_group(run, monkeypatch):
    asked = []
    monkeypatch.setattr("anonymix_plugin.cli.models.pull", lambda names, progress: asked.append(names) or [])
    for words in ([], ["--group", "evaluation"], ["--all"], ["yunet", "sface"]):
        assert run("pull", *words).exit_code == 0
    assert set(asked[0]) == {"mobilestylegan", "yunet", "arcface-mbf", "sface"}
    assert set(asked[1]) == {"facenet", "dlib-recognition"}
    assert asked[2] == tuple(REGISTRY)
    assert asked[3] == ("yunet", "sface")


def test_verify_ends_with_5_on_damage(run, index):
    index.add("toy", {"a.bin": b"aa"})
    run("pull", "toy")
    assert run("verify", "toy").exit_code == 0
    assert run("verify").exit_code == 0
    locate("toy").write_bytes(b"??")
    damaged = run("verify")
    assert damaged.exit_code == 5
    assert "damaged" in damaged.stdout
    states = {item["model"]: item["status"] for item in json.loads(run("verify", "--json").stdout)}
    assert states["toy"] == "damaged"


def test_verify_minds_missing_weights_only_if_they_were_named(run, index):
    index.add("toy", {"a.bin": b"aa"})
    assert run("verify").exit_code == 0
    assert run("verify", "toy").exit_code == 5
