"""The page: who gets in, what a form may do, and what a browser is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from gateway_rig import served
from recording_upstream import QuickMixer

from anonymix_adapters.gateway import Callers, Gateway, Tokens
from anonymix_adapters.gateway.page import Page
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock

PHOTO = Path(__file__).parents[1] / "people" / "alex_1.jpg"


class Rig:
    def __init__(self, keystore: Keystore, tokens: Tokens, url: str) -> None:
        self.keystore, self.tokens, self.url = keystore, tokens, url

    @contextmanager
    def browser(self, *rights: str) -> Iterator[httpx2.Client]:
        """A browser that is signed in."""
        secret, self.token = self.tokens.create(rights)
        with httpx2.Client(base_url=self.url, follow_redirects=True, timeout=30) as client:
            answer = client.post("/page/in", data={"token": secret})
            assert answer.status_code == 200, answer.text
            yield client


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    tokens = Tokens(tmp_path / "tokens.json")
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as store:
        store.gallery()
        store.issue("<b>alice</b>")
        gateway = Gateway(
            None,
            Callers(None),
            api_callers=Callers(tokens),
            more=lambda it: Page(it, QuickMixer(store)).routes(),
        )
        with served(gateway.app) as url:
            yield Rig(store, tokens, url)


def csrf(text: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def test_nobody_gets_in_without_a_token_that_is_for_it(rig: Rig) -> None:
    with httpx2.Client(base_url=rig.url) as client:
        page = client.get("/page")
        assert "Sign in" in page.text
        assert "alice" not in page.text
        assert client.post("/page/in", data={"token": "anx_wrong"}).status_code == 401
        secret, _ = rig.tokens.create(["probe"])
        assert client.post("/page/in", data={"token": secret}).status_code == 403
        assert client.post("/page/change", data={"action": "revoke", "subject": ""}).status_code == 401
        assert "anonymix-session" not in client.cookies
        secret, _ = rig.tokens.create(["administer"])
        cookie = client.post("/page/in", data={"token": secret}).headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/page"} <= {part.strip() for part in cookie.split(";")}


def test_a_browser_is_told_to_load_nothing_from_elsewhere(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        page = browser.get("/page")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert "<script" not in page.text
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    assert "&lt;b&gt;alice&lt;/b&gt;" in page.text
    assert "<b>alice" not in page.text
    for name in re.findall(r'<(?:input|select) id="(\w+)"', page.text):
        assert f'<label for="{name}">' in page.text


def test_a_change_is_made_only_after_what_follows_was_shown(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        page = browser.get("/page")
        form = {"csrf": csrf(page.text), "action": "breach", "subject": ""}
        asked = browser.post("/page/change", data=form)
        assert "What would follow?" not in asked.text
        assert rig.keystore.gallery().version == 1
        done = browser.post("/page/change", data=form | {"sure": "breach "})
        assert "version 2 counts" in done.text
        assert rig.keystore.gallery().version == 2
        rotated = browser.post(
            "/page/change", data=form | {"action": "rotate", "subject": "<b>alice</b>", "sure": "rotate <b>alice</b>"}
        )
        assert "version 2 counts" in rotated.text
        assert any(rig.token.id in str(line.get("reason")) for line in rig.keystore.audit())
        gone = browser.post(
            "/page/change", data=form | {"action": "forget", "subject": "<b>alice</b>", "sure": "forget <b>alice</b>"}
        )
        assert "Forgotten" in gone.text
        assert list(rig.keystore.subjects()) == []


def test_forms_of_other_pages_do_nothing(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        good = csrf(browser.get("/page").text)
        form = {"action": "revoke", "subject": "", "sure": "revoke "}
        assert browser.post("/page/change", data=form).status_code == 403
        assert browser.post("/page/change", data=form | {"csrf": "x"}).status_code == 403
        other = {"origin": "https://elsewhere.example"}
        assert browser.post("/page/change", data=form | {"csrf": good}, headers=other).status_code == 403
        assert rig.keystore.gallery().version == 1


def test_a_photo_is_shown_as_its_cancelable_face_and_nothing_else(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        form = {"csrf": csrf(browser.get("/page").text), "subject": ""}
        shown = browser.post("/page/try", data=form, files={"photo": ("a.jpg", PHOTO.read_bytes())})
        assert 'alt="The cancelable face under key version 1"' in shown.text
        bad = browser.post("/page/try", data=form, files={"photo": ("a.jpg", b"no photo")})
        assert 'role="alert"' in bad.text


def test_the_audit_trail_is_for_those_who_may_read_it(rig: Rig) -> None:
    with rig.browser("audit") as browser:
        assert "Verified" in browser.get("/page/audit").text
        page = browser.get("/page")
        assert "alice" not in page.text
        change = {"csrf": csrf(page.text), "action": "revoke", "subject": "", "sure": "revoke "}
        assert browser.post("/page/change", data=change).status_code == 403
    with rig.browser("administer") as browser:
        assert browser.get("/page/audit").status_code == 403


def test_a_revoked_token_ends_its_sessions(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        assert "Keys of the scope" in browser.get("/page").text
        rig.tokens.revoke(rig.token.id)
        assert "Sign in" in browser.get("/page").text


def test_signing_out_ends_the_session(rig: Rig) -> None:
    with rig.browser("administer") as browser:
        old = dict(browser.cookies)
        browser.post("/page/out", data={"csrf": csrf(browser.get("/page").text)})
        assert "Sign in" in httpx2.get(f"{rig.url}/page", cookies=old).text


def test_chromium_shows_the_page(rig: Rig, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [*command, "--window-size=500,800", f"--screenshot={shot}", "--enable-logging=stderr", f"{rig.url}/page"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shot.stat().st_size > 5_000
    assert "Content Security Policy" not in done.stderr
    assert "Refused to" not in done.stderr


def test_a_token_for_other_scopes_sees_no_subject_and_no_audit_trail(rig: Rig) -> None:
    rights = ["administer", "audit"]
    elsewhere, _ = rig.tokens.create(rights, scopes=["elsewhere"])
    here, _ = rig.tokens.create(rights, scopes=["default"])
    with httpx2.Client(base_url=rig.url, follow_redirects=True) as client:
        answer = client.post("/page/in", data={"token": elsewhere})
        assert answer.status_code == 403
        assert "alice" not in client.get("/page").text
        assert "alice" in client.post("/page/in", data={"token": here}).text
        assert client.get("/page/audit").status_code == 403
