"""The page: who gets in, what a form may do, what follows, and what a browser is told."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from page_rig import CHEAP, EVERYTHING, PEOPLE, PHOTO, Rig, enrol, new_store, people, rig_over
from patience import PATIENCE, eventually
from recording_upstream import QuickMixer

from anonymix_adapters.gateway import Limits
from anonymix_adapters.gateway.page import _drills
from anonymix_adapters.gateway.page._drills import Drills
from anonymix_adapters.gateway.recent import CountingMixer, Recent, percentile
from anonymix_keystore import Keystore, PassphraseUnlock


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Keystore]:
    with new_store(tmp_path) as made:
        yield made


@pytest.fixture
def rig(store: Keystore) -> Iterator[Rig]:
    people(store)
    with rig_over(store) as made:
        yield made


def csrf(text: str) -> str:
    return hidden(text, "csrf")


def hidden(text: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', text)
    assert found is not None, text
    return found[1]


def link_to(browser: httpx2.Client, subject: str) -> str:
    """The address of a subject's page, from the list."""
    shown = subject.replace("<", "&lt;").replace(">", "&gt;")
    found = re.search(rf'href="([^"]+)">{re.escape(shown)}</a>', browser.get("/page/subjects").text)
    assert found is not None
    return found[1]


def confirmed(browser: httpx2.Client, subject: str, action: str, **more: str) -> httpx2.Response:
    """Ask for a change, and confirm what was shown."""
    address = f"{link_to(browser, subject)}/{action}"
    asked = browser.get(address).text
    form = {"csrf": csrf(asked), "sure": hidden(asked, "sure"), "understood": "on"}
    return browser.post(address, data=form | more)


# --- who ------------------------------------------------------------------------------------------


def test_nobody_gets_in_without_a_token_that_is_for_it(rig: Rig) -> None:
    with httpx2.Client(base_url=rig.url) as client:
        for path in ("/page", "/page/subjects", "/page/preview", "/page/drill", "/page/audit", "/page/x"):
            page = client.get(path)
            assert "Sign in" in page.text
            assert "alice" not in page.text
            assert "has ended" not in page.text
        assert client.get("/page/figures").status_code == 401
        assert client.get("/page/drill/state").status_code == 401
        assert client.post("/page/in", data={"token": "anx_wrong"}).status_code == 401
        secret, _ = rig.tokens.create(["probe"])
        assert client.post("/page/in", data={"token": secret}).status_code == 403
        for path in ("/page/subjects", "/page/preview", "/page/drill", "/page/audit/verify", "/page/out"):
            assert client.post(path, data={"csrf": "x"}).status_code == 401
        assert "anonymix-session" not in client.cookies
        secret, _ = rig.tokens.create(["administer"])
        parts = client.post("/page/in", data={"token": secret}).headers["set-cookie"].lower().split("; ")
        assert {"httponly", "samesite=strict", "path=/page", "max-age=28800"} <= set(parts)
        assert "secure" not in parts
        origin = {"origin": f"https://{httpx2.URL(rig.url).netloc.decode()}"}
        parts = (
            client.post("/page/in", data={"token": secret}, headers=origin).headers["set-cookie"].lower().split("; ")
        )
        assert "secure" in parts


def test_a_token_sees_and_changes_its_own_scopes_alone(rig: Rig) -> None:
    rig.keystore.issue("eve", "elsewhere")
    with rig.browser(*EVERYTHING) as browser:
        foreign = link_to(browser, "<b>alice</b>")
    with rig.browser(*EVERYTHING, scopes=["elsewhere"]) as browser:
        page = browser.get("/page/subjects").text
        assert "eve" in page
        assert "alice" not in page
        assert browser.get("/page/audit").status_code == 403
        assert browser.get(foreign).status_code == 404
        form = {"csrf": csrf(page), "subject": "<b>alice</b>", "scope": "default"}
        refused = browser.post("/page/preview", data=form, files={"photo": ("a.jpg", PHOTO.read_bytes())})
        assert refused.status_code == 403
    with rig.browser("audit") as browser:
        assert browser.get("/page/audit").status_code == 200
        for path in ("/page/subjects", "/page/preview", "/page/drill"):
            assert browser.get(path).status_code == 403
        assert "Subjects" not in browser.get("/page").text


def test_a_session_that_has_ended_says_so(store: Keystore) -> None:
    now = [time.time()]
    store.issue("alice")
    with rig_over(store, clock=lambda: now[0]) as rig, rig.browser("administer") as browser:
        assert "alice" in browser.get("/page/subjects").text
        now[0] += 8 * 3600 + 1
        page = browser.get("/page/subjects")
        assert "session has ended" in page.text
        assert "alice" not in page.text
        assert "has ended" not in browser.get("/page/subjects").text  # said once: the cookie is gone
    with rig_over(store) as rig, rig.browser("administer") as browser:
        rig.tokens.revoke(rig.token.id)
        assert "session has ended" in browser.get("/page").text


def test_signing_out_ends_the_session_for_every_worker_and_no_file_has_the_cookie(rig: Rig) -> None:
    with rig_over(rig.keystore) as other, rig.browser("administer") as browser:
        cookies = dict(browser.cookies)
        (secret,) = cookies.values()
        assert "Overview" in httpx2.get(f"{other.url}/page", cookies=cookies).text
        kept = rig.keystore.path.with_name("gateway-page")
        assert all(secret not in each.read_text() for each in kept.iterdir())
        assert kept.stat().st_mode & 0o077 == 0
        assert "signed out" in browser.post("/page/out", data={"csrf": csrf(browser.get("/page").text)}).text
        for url in (rig.url, other.url):
            assert "session has ended" in httpx2.get(f"{url}/page", cookies=cookies).text


def test_forms_of_other_pages_do_nothing(rig: Rig) -> None:
    with rig.browser(*EVERYTHING) as browser:
        address = f"{link_to(browser, '<b>alice</b>')}/breach"
        asked = browser.get(address).text
        good = {"csrf": csrf(asked), "sure": hidden(asked, "sure"), "understood": "on"}
        for bad in ({"csrf": ""}, {"csrf": "x"}, {"csrf": good["sure"]}):
            assert browser.post(address, data=good | bad).status_code == 403
        for headers in (
            {"origin": "https://elsewhere.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            assert browser.post(address, data=good, headers=headers).status_code == 403
            assert httpx2.post(f"{rig.url}/page/in", data={"token": rig.secret}, headers=headers).status_code == 403
        assert rig.keystore.history("<b>alice</b>")[-1].version == 1
        assert browser.post(address, data=good).status_code == 200
        assert rig.keystore.history("<b>alice</b>")[-1].version == 2


def test_a_browser_is_told_to_load_nothing_from_elsewhere_and_to_run_no_script_of_a_page(rig: Rig) -> None:
    with rig.browser(*EVERYTHING) as browser:
        pages = [
            browser.get(path) for path in ("/page", "/page/subjects", "/page/preview", "/page/drill", "/page/audit")
        ]
        pages.append(browser.get(link_to(browser, "<b>alice</b>")))
    for page in pages:
        policy = page.headers["content-security-policy"]
        nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
        assert nonce is not None
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"unsafe|https?:|\*", policy)
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert scripts == [f'<script src="/page/page.js" nonce="{nonce[1]}" defer>']
        assert not re.findall(r"<style| style=| on[a-z]+=", page.text)
        assert not re.findall(r'(?:src|href|action)="(?!/page|#|data:)', page.text)
        assert "<b>alice" not in page.text
        assert page.headers["cache-control"] == "no-store"
    assert len({page.headers["content-security-policy"] for page in pages}) == len(pages)


def test_no_name_and_no_token_is_in_an_address_or_in_the_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    with caplog.at_level(logging.INFO, "anonymix.gateway"), rig.browser(*EVERYTHING) as browser:
        browser.event_hooks["request"] = [lambda request: seen.append(str(request.url))]
        form = {"csrf": csrf(browser.get("/page").text), "text": "alice"}
        assert "alice" in browser.post("/page/subjects", data=form).text
        assert confirmed(browser, "<b>alice</b>", "rotate").status_code == 200
        assert confirmed(browser, "<b>alice</b>", "breach").status_code == 200
        assert confirmed(browser, "<b>alice</b>", "forget").status_code == 200
    lines = [record.getMessage() for record in caplog.records]
    assert len(seen) > 8
    assert {json.loads(line)["call"] for line in lines} >= {"/page/in", "/page/breach", "/page/forget"}
    assert all(rig.token.id in line for line in lines)
    for text in [*seen, *lines]:
        assert "alice" not in text
        assert rig.secret not in text


# --- subjects -------------------------------------------------------------------------------------


def test_ten_thousand_subjects_are_searched_and_leafed_through(store: Keystore) -> None:
    store.issue_many(f"subject {number:05d}" for number in range(10_000))
    with rig_over(store) as rig, rig.browser("administer") as browser:
        first = browser.get("/page/subjects")
        assert len(first.content) < 40_000
        assert first.text.count("<tr>") == 51
        assert "10,000 subjects, page 1 of 200" in first.text
        form = {"csrf": csrf(first.text)}
        last = browser.post("/page/subjects", data=form | {"page": "200"}).text
        assert "subject 09999" in last
        assert "Next page" not in last
        assert "page 200 of 200" in browser.post("/page/subjects", data=form | {"page": "99999999"}).text
        assert "1 subject<" in browser.post("/page/subjects", data=form | {"text": "SUBJECT 04711"}).text
        store.rotate("subject 00003", reason="breach")
        store.revoke("subject 00004")
        confirmed(browser, "subject 00000", "revoke")
        gone = browser.post("/page/subjects", data=form | {"state": "destroyed"}).text
        assert "2 subjects" in gone


def test_the_list_tells_state_version_entries_and_what_is_due(rig: Rig) -> None:
    rig.keystore.rotate("<b>alice</b>")
    rig.keystore.issue("bob", "second")
    with rig.browser("administer") as browser:
        page = browser.get("/page/subjects").text
        row = re.search(r"alice&lt;/b&gt;</a></th>(.*?)</tr>", page)
        assert row is not None
        assert re.findall(r">([^<>]+)<", row[1]) == ["default", "active", "2", "1", "1"]
        visitor = re.search(r"visitor</a></th>(.*?)</tr>", page)
        assert visitor is not None
        assert re.findall(r">([^<>]+)<", visitor[1]) == ["default", "gallery key", "–", "1", "0"]
        due = browser.post("/page/subjects", data={"csrf": csrf(page), "due": "on"}).text
        assert "1 subject<" in due
        other = browser.post("/page/subjects", data={"csrf": csrf(page), "scope": "second"}).text
        assert "bob" in other
        assert "alice" not in other
        details = browser.get(link_to(browser, "<b>alice</b>")).text
        assert "entry-1" in details
        assert "delete, enrol again" in details
        assert "retired" in details


def test_the_list_goes_on_without_a_damaged_subject_and_says_whose_row_it_is(rig: Rig) -> None:
    rig.keystore.issue("bob", "second")
    with closing(sqlite3.connect(rig.keystore.path)) as db:
        db.execute("UPDATE heads SET created = 5 WHERE tag IN (SELECT subject FROM enrolments)")
        db.commit()
    time.sleep(0.06)  # after so long a read looks whether the file is still its own
    with rig.browser("administer") as browser:
        page = browser.get("/page/subjects").text
        assert "visitor</a>" in page
        assert "bob</a>" in page
        assert "alice&lt;/b&gt;</a>" not in page
        assert re.search(r'role="alert">Damaged.*subject &#39;&lt;b&gt;alice&lt;/b&gt;&#39; in scope', page)
        assert "<b>alice" not in page
        assert "keys revoke" in page
    with rig.browser("administer", scopes=["second"]) as browser:  # it may not see that scope
        page = browser.get("/page/subjects").text
        assert "bob</a>" in page
        assert "rows of some subjects fail authentication" in page
        assert "alice" not in page


# --- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "follows", "told"),
    [
        (
            "rotate",
            ["Version 2 takes the place", "Probes may use version 1 until", "deleted in back ends: 1"],
            "version 2",
        ),
        (
            "breach",
            ["Version 2 takes the place", "erased at once: version 1", "enrolled again, with a new photo: 1"],
            "2",
        ),
        ("revoke", ["erased at once: version 1", "nobody can match any more"], "Revoked: version 1"),
        ("forget", ["All keys are erased", "scopes know stays: second", "last list of them"], "Forgotten"),
    ],
)
def test_a_change_is_made_only_after_what_follows_was_shown(
    rig: Rig, action: str, follows: list[str], told: str
) -> None:
    rig.keystore.issue("<b>alice</b>", "second")
    with rig.browser("administer") as browser:
        address = f"{link_to(browser, '<b>alice</b>')}/{action}"
        epoch = rig.keystore.epoch
        asked = browser.get(address).text
        for words in (*follows, "compreface", "staff"):
            assert words in asked
        form = {"csrf": csrf(asked)}
        assert "What will follow" in browser.post(address, data=form).text
        sure = form | {"sure": hidden(asked, "sure")}
        assert "What will follow" in browser.post(address, data=sure).text  # what can't be undone was not ticked
        assert rig.keystore.epoch == epoch
        done = browser.post(address, data=sure | {"understood": "on"})
        assert told in done.text
        if action == "forget":
            assert "entry-1" in done.text
            assert browser.get(address.rpartition("/")[0]).status_code == 404
            assert rig.keystore.history("<b>alice</b>", "second")
        (line,) = rig.keystore.audit(epoch)
        assert line["actor"] == f"token {rig.token.id}"


def test_a_confirmation_counts_once_and_for_what_it_showed_alone(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        address = f"{link_to(browser, '<b>alice</b>')}/rotate"
        asked = browser.get(address).text
        form = {"csrf": csrf(asked), "sure": hidden(asked, "sure"), "understood": "on"}
        assert "counts from now on" in browser.post(address, data=form).text
        again = browser.post(address, data=form).text
        assert "have changed since" in again
        assert "Version 3 takes the place" in again
        assert rig.keystore.history("<b>alice</b>")[-1].version == 2
        other = address.replace("/rotate", "/forget")
        assert "have changed since" in browser.post(other, data=form).text
        assert browser.get(address.replace("/rotate", "/nonsense")).status_code == 404


def test_a_form_that_is_sent_several_times_at_once_changes_one_version(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        address = f"{link_to(browser, '<b>alice</b>')}/rotate"
        asked = browser.get(address).text
        form = {"csrf": csrf(asked), "sure": hidden(asked, "sure"), "understood": "on"}
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: browser.post(address, data=form).text, range(8)))
    assert sum("counts from now on" in answer for answer in answers) == 1
    assert rig.keystore.history("<b>alice</b>")[-1].version == 2


def test_the_gallery_key_says_how_many_people_are_concerned(rig: Rig) -> None:
    enrol(rig.keystore, "another", "entry-3", gallery=True)
    with rig.browser("administer") as browser:
        asked = browser.get(f"{link_to(browser, 'Gallery key')}/rotate").text
        assert "with a new photo: 2" in asked
        assert "counts from now on" in confirmed(browser, "Gallery key", "rotate").text
        assert "Revoked" in confirmed(browser, "Gallery key", "revoke").text
        assert browser.get(f"{link_to(browser, 'Gallery key')}/forget").status_code == 404


# --- preview --------------------------------------------------------------------------------------


def test_a_preview_issues_enrols_and_records_nothing(rig: Rig) -> None:
    epoch = rig.keystore.epoch
    with rig.browser("administer") as browser:
        form = {"csrf": csrf(browser.get("/page").text), "scope": "default"}
        photo = {"photo": ("a.jpg", PHOTO.read_bytes())}
        known = browser.post("/page/preview", data=form | {"subject": "<b>alice</b>"}, files=photo)
        assert "version 1, the key in use" in known.text
        assert "drawn for this preview and thrown away" in known.text
        assert known.text.count('src="data:image/jpeg;base64,') == 2
        for new in ({"subject": "nobody"}, {"subject": "", "scope": "new"}):
            page = browser.post("/page/preview", data=form | new, files=photo).text
            assert "No key was ever issued" in page
            assert page.count('src="data:image/jpeg;base64,') == 1
        bad = browser.post("/page/preview", data=form, files={"photo": ("a.jpg", b"no photo")})
        assert bad.status_code == 422
        assert 'role="alert"' in bad.text
        rig.keystore.revoke("<b>alice</b>")
        epoch += 1
        revoked = browser.post("/page/preview", data=form | {"subject": "<b>alice</b>"}, files=photo)
        assert revoked.status_code == 409
    assert rig.keystore.epoch == epoch
    assert rig.keystore.scopes() == ("default",)


def test_today_and_next_are_two_faces_of_one_photo(adapter_mixer: Any, store: Keystore) -> None:
    store.issue("alice")
    mixer = adapter_mixer.mixer.with_keystore(store)
    with rig_over(store, mixer) as rig, rig.browser("administer") as browser:
        form = {"csrf": csrf(browser.get("/page").text), "scope": "default", "subject": "alice"}
        pages = [
            browser.post("/page/preview", data=form, files={"photo": ("a.jpg", PHOTO.read_bytes())}).text
            for _ in range(2)
        ]
    (today, after), (today_again, after_again) = (re.findall(r"base64,([^\"]+)", page) for page in pages)
    assert today == today_again
    assert len({today, after, after_again}) == 3


# --- drill ----------------------------------------------------------------------------------------


def test_a_drill_runs_on_people_of_its_own_and_touches_no_key(
    adapter_mixer: Any, store: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.issue("alice")
    go_on, notes, note, run = threading.Event(), [], Drills._note, _drills.run
    monkeypatch.setattr(_drills, "_TICK", 0.0)
    monkeypatch.setattr(_drills, "run", lambda *args, **how: (go_on.wait(PATIENCE), run(*args, **how))[1])
    monkeypatch.setattr(Drills, "_note", lambda drills, **state: (notes.append(state), note(drills, **state))[1])
    mixer = adapter_mixer.mixer.with_keystore(store)
    with rig_over(store, mixer, photos=PEOPLE) as rig, rig.browser("administer") as browser:
        before = [store.epoch, list(store.list()), list(store.enrolments())]
        form = {"csrf": csrf(browser.get("/page/drill").text), "recogniser": "opencv", "people": "2"}
        assert browser.post("/page/drill", data=form | {"people": "13"}).status_code == 422
        assert browser.post("/page/drill", data=form | {"recogniser": "rekognition"}).status_code == 400
        assert "Under way: 2 people, opencv" in browser.post("/page/drill", data=form).text
        assert browser.post("/page/drill", data=form).status_code == 409
        go_on.set()
        assert eventually(lambda: not browser.get("/page/drill/state").json()["running"])
        page = browser.get("/page/drill").text
    shares = [each["share"] for each in notes]
    assert shares == sorted(shares)
    assert len({each["step"].partition(":")[0] for each in notes}) > 3
    assert "The last drill" in page
    assert "old entries that match after the rotation" in page
    assert "alice" not in page
    assert [store.epoch, list(store.list()), list(store.enrolments())] == before


def test_a_drill_that_was_interrupted_or_has_no_photos_says_so(rig: Rig) -> None:
    folder = rig.keystore.path.with_name("gateway-page")
    with rig.browser("administer") as browser:
        page = browser.get("/page/drill").text
        assert "--drill-photos" in page
        form = {"csrf": csrf(page), "recogniser": "opencv", "people": "2"}
        assert browser.post("/page/drill", data=form).status_code == 400
        state = {"running": True, "adapter": "opencv", "people": 2, "step": "people enrolled: 1 of 2", "share": 5}
        (folder / "drill.json").write_text(json.dumps(state))
        assert "interrupted" in browser.get("/page/drill").text


# --- audit trail ----------------------------------------------------------------------------------


def test_the_audit_trail_is_verified_and_leafed_through(store: Keystore) -> None:
    for number in range(150):
        store.issue(f"s{number}")
    with rig_over(store) as rig, rig.browser("audit") as browser:
        page = browser.get("/page/audit").text
        assert "Not verified yet" in page
        assert "151 events" in page
        older = re.search(r'href="(/page/audit\?before=\d+)"', page)
        assert older is not None
        assert ">1</th>" in browser.get(older[1]).text
        verified = browser.post("/page/audit/verify", data={"csrf": csrf(page)}).text
        assert "151 events, 150 keys" in verified
        assert "Nothing is wrong" in verified
        store.issue("later")
        assert "1 events came since" in browser.get("/page/audit").text


def test_the_first_broken_event_is_named(store: Keystore) -> None:
    for number in range(5):
        store.issue(f"s{number}")
    path = store.path
    store.close()
    broken = "UPDATE audit SET mac = zeroblob(32) WHERE seq = 3"
    # In another process: this one must not open a store's file by other means.
    code = f"import sqlite3; db = sqlite3.connect({str(path)!r}); db.execute({broken!r}); db.commit(); db.close()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
    with (
        Keystore.open(path, PassphraseUnlock("swordfish", cost=CHEAP)) as opened,
        rig_over(opened) as rig,
        rig.browser("audit") as browser,
    ):
        page = browser.post("/page/audit/verify", data={"csrf": csrf(browser.get("/page/audit").text)}).text
    assert "something is wrong" in page
    assert "line 3 does not continue the chain" in page


# --- figures --------------------------------------------------------------------------------------


def test_the_figures_tell_faces_latency_queue_and_refusals(store: Keystore) -> None:
    counting = CountingMixer(QuickMixer(store))
    with rig_over(store) as rig, rig.browser("administer") as browser:
        assert browser.get("/page/figures").json()["p50"] == "none yet"
        counting.count = rig.gateway.metrics.recent.faces
        for _ in range(3):
            counting.protect(PHOTO.read_bytes())
        for number in range(100):
            rig.gateway.metrics.request("recognize", 200, "", (number + 1) / 100)
        rig.gateway.metrics.request("recognize", 503, "busy", 0.001)
        rig.gateway.workers.watch(6)
        figures = browser.get("/page/figures").json()
        page = browser.get("/page").text
    assert float(figures["faces"]) > 0
    assert (figures["p50"], figures["p99"]) == ("500 ms", "990 ms")
    assert (figures["working"], figures["waiting"]) == ("4 of 4", "2 of 16")
    assert figures["refusals"] == [["busy", "1", "1"]]
    for value in ("500 ms", "990 ms", "2 of 16", "busy"):
        assert value in page


def test_the_figures_are_those_of_all_processes(tmp_path: Path) -> None:
    own = Recent(tmp_path)
    assert own.lately().processes == 0  # a process that serves nobody, but shows the figures of those that do
    own.request(0.1, "")
    own.inside(1)
    code = f"""
from pathlib import Path
from anonymix_adapters.gateway.recent import Recent
other = Recent(Path({str(tmp_path)!r}))
other.request(0.3, "")
other.request(0.0, "busy")
other.faces(2)
other.inside(5)
print("ready", flush=True)
input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        found = own.lately()
        other.communicate("\n", timeout=PATIENCE)
    assert (found.processes, found.inside, found.requests, found.faces) == (2, 6, 3, 2)
    assert sorted(found.seconds) == [0.1, 0.3]
    assert found.refusals == {"busy": 1}
    assert own.lately().processes == 1


def test_only_the_last_minute_counts() -> None:
    now = [100.0]
    recent = Recent(clock=lambda: now[0])
    recent.request(1.0, "")
    assert recent.lately().span == 1.0
    now[0] += 59.0
    recent.request(2.0, "")
    assert (recent.lately().seconds, recent.lately().span) == ([1.0, 2.0], 59.0)
    now[0] += 41.0
    assert (recent.lately().seconds, recent.lately().span) == ([2.0], 60.0)
    for number in range(5_000):
        now[0] += 0.001
        recent.request(number, "")
    full = recent.lately()  # the oldest of the ring says of how long it is
    assert full.requests == 4_096
    assert full.span == pytest.approx(4.095)
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0


def test_in_front_of_a_key_service_the_page_has_figures_and_drills(store: Keystore) -> None:
    class Service(QuickMixer):
        keystore: Any = object()

        def __init__(self) -> None:
            pass

    with rig_over(store, Service()) as rig, rig.browser(*EVERYTHING) as browser:
        page = browser.get("/page")
        assert "Breach drill" in page.text
        assert "Subjects" not in page.text
        assert browser.get("/page/drill").status_code == 200
        for path in ("/page/subjects", "/page/preview", "/page/audit"):
            answer = browser.get(path)
            assert answer.status_code == 404
            assert "key service" in answer.text


def test_a_full_queue_does_not_hide_itself(store: Keystore) -> None:
    with rig_over(store) as rig, rig.browser(*EVERYTHING) as browser:
        rig.gateway.workers.inside = Limits().threads + Limits().waiting
        for path in ("/page", "/page/subjects", "/page/audit", "/page/drill"):
            assert browser.get(path).status_code == 200
