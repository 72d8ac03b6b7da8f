"""What a real run leaves behind: a page that needs nothing else, a summary that programs can read."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
from demo_run import Run
from PIL import Image

from anonymix_plugin import read_marker
from anonymix_plugin.models import REGISTRY

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what refers to something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.references: list[tuple[str, str]] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        for name, value in attrs:
            if name in {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}:
                self.references.append((tag, value or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(small_run: Run) -> Page:
    parser = Page()
    parser.feed(small_run.page)
    parser.close()
    return parser


def test_small_run_takes_less_than_a_minute_of_the_processor(small_run: Run) -> None:
    assert small_run.seconds < 60


def test_exit_code_says_whether_the_story_holds(small_run: Run) -> None:
    assert small_run.code == (0 if small_run.facts["holds"] else 1)


def test_page_is_one_well_formed_document(page: Page, small_run: Run) -> None:
    assert small_run.page.lstrip().startswith("<!DOCTYPE html>")
    assert page.open == []
    assert {"html", "head", "title", "body", "main", "h1", "table", "img"} <= page.seen
    assert "script" not in page.seen


def test_page_refers_to_nothing_outside(page: Page, small_run: Run) -> None:
    assert page.references
    assert all(value.startswith("data:image/jpeg;base64,") for _, value in page.references)
    style = re.search(r"<style>(.*?)</style>", small_run.page, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import", style[1])
    assert "default-src 'none'" in small_run.page


def test_every_picture_has_a_text_and_is_small(page: Page, small_run: Run) -> None:
    assert len(page.pictures) >= 10
    for picture in page.pictures:
        assert picture["alt"]
        data = base64.b64decode((picture["src"] or "").partition(",")[2])
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 256
    assert len(small_run.page.encode()) < 6_000_000


def test_cancelable_faces_on_the_page_are_marked_and_photos_are_not(page: Page) -> None:
    for picture in page.pictures:
        marker = read_marker(base64.b64decode((picture["src"] or "").partition(",")[2]))
        assert (marker is None) == (picture["alt"] or "").startswith("Unprotected")


def test_page_tells_licences_and_what_it_does_not_show(page: Page, small_run: Run) -> None:
    text = " ".join(page.text)
    for entry in small_run.facts["licences"]:
        assert REGISTRY[entry["name"]].licence in text
        assert entry["restrictions"] in text
    assert "does not show" in text
    assert small_run.facts["fingerprint"] in text


def test_summary_has_its_schema(small_run: Run) -> None:
    facts = small_run.facts
    assert facts["schema"] == 1
    assert isinstance(facts["ok"], bool)
    assert facts["sample_people"] is True
    assert re.fullmatch(r"[0-9a-f]{32}", facts["fingerprint"])
    assert [one["photos"] for one in facts["people"]] == [2, 2]
    assert [matcher["name"] for matcher in facts["matchers"]] == ["arcface-mbf", "facenet"]
    counted = {chapter["chapter"]: chapter["matchers"]["facenet"] for chapter in facts["chapters"]}
    assert {name: entry["comparisons"] for name, entry in counted.items()} == {
        "genuine": 2,
        "impostor": 2,
        "original": 4,
        "other-key": 2,
        "old-key": 1,
        "new-key": 1,
        "shared": 2,
        "shared-impostor": 2,
    }
    assert all(-1 <= entry["lowest"] <= entry["mean"] <= entry["highest"] <= 1 for entry in counted.values())
    assert len(facts["comparisons"]) == 16
    assert {table["name"] for table in facts["tables"]} == {
        "before",
        "own-key",
        "original",
        "other-key",
        "shared-key",
    }
    assert all(len(table["scores"]["facenet"]) == 2 for table in facts["tables"])
    assert facts["seconds"] == pytest.approx(sum(stage["seconds"] for stage in facts["stages"]), abs=0.01)
    assert {"detect", "embed", "mix", "generate", "total"} <= set(facts["face_seconds"])
    assert facts["machine"]["cores"] >= 1
    assert facts["rotation"]["new_version"] == facts["rotation"]["old_version"] + 1


def test_destroyed_key_lets_nothing_pass(small_run: Run) -> None:
    ended = small_run.facts["revocation"]
    assert ended["refused"] is True
    assert [refusal["code"] for refusal in ended["refusals"]] == ["key_revoked", "key_revoked"]


def test_ok_says_whether_every_comparison_ended_as_expected(small_run: Run) -> None:
    limits = {matcher["name"]: matcher["threshold"] for matcher in small_run.facts["matchers"]}
    all_right = all(
        (score >= limits[name]) == (entry["expected"] == "accept")
        for entry in small_run.facts["comparisons"]
        for name, score in entry["scores"].items()
    )
    assert small_run.facts["ok"] is all_right


def test_json_on_standard_output_is_the_summary(small_run: Run) -> None:
    assert json.loads(small_run.printed) == small_run.facts


def test_outputs_are_the_two_files_alone(small_run: Run) -> None:
    assert {path.name for path in small_run.folder.iterdir()} == {"index.html", "summary.json"}


def test_no_secret_is_in_any_output(small_run: Run) -> None:
    assert len(set(small_run.secrets)) >= 6  # passphrase, two keys in two scopes, a new one, a shared one
    for output in (small_run.page, json.dumps(small_run.facts), small_run.printed):
        raw = output.encode()
        for secret in set(small_run.secrets):
            assert len(secret) == 32
            forms = [
                secret,
                secret.hex().encode(),
                base64.b64encode(secret),
                base64.urlsafe_b64encode(secret),
            ]
            forms += [repr(secret).encode(), str(list(secret)).encode()]
            assert not any(form.rstrip(b"=") in raw for form in forms)
