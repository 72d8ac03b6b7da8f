"""The page in Debian's Chromium: by keyboard, at 360 px, light and dark, without scripts, without a violation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, chromium
from page_rig import EVERYTHING, PEOPLE, PHOTO, Rig, new_store, people, rig_over

from anonymix_keystore import Keystore

STYLE = Path(__file__).parents[2] / "adapters" / "anonymix_adapters" / "gateway" / "page" / "static" / "page.css"
REACHED = "a[href], button, input:not([type=hidden]), select, textarea"
NAMED = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "spinbutton",
    "progressbar",
    "image",
    "table",
}

# Text whose contrast with what is behind it is below 4.5, by WCAG's relative luminance.
FAINT = r"""
(() => {
  const numbers = (text) => text.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = numbers(getComputedStyle(each).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own && !element.matches("input, select")) continue;
    const [a, b] = [light(numbers(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([element.tagName, element.textContent.trim().slice(0, 30), ratio]);
  }
  return found;
})()
"""
WIDER = """
[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1
  && getComputedStyle(e).clipPath === "none").map((e) => e.outerHTML.slice(0, 80))
"""
FOCUSED = """
(() => {
  const style = getComputedStyle(document.activeElement);
  return [all.indexOf(document.activeElement), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
})()
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Chromium]:
    program = chromium()
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with Chromium(program) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Keystore]:
    with new_store(tmp_path) as made:
        people(made)
        made.issue_many(f"employee-with-a-long-name-{number:03d}@example.org" for number in range(60))
        made.issue("bob", "second")
        made.rotate("<b>alice</b>")
        yield made


@pytest.fixture
def rig(store: Keystore) -> Iterator[Rig]:
    with rig_over(store, photos=PEOPLE) as made:
        yield made


@pytest.fixture
def signed_in(rig: Rig, tab: Chromium) -> Iterator[Chromium]:
    tab.scripts(on=True)
    tab.window(1000)
    tab.call("Network.clearBrowserCookies")
    tab.go(f"{rig.url}/page")
    rig.secret, rig.token = rig.tokens.create(EVERYTHING)
    tab.until("document.activeElement.id === 'token'")
    tab.write(rig.secret)
    with tab.loading():
        tab.press("Enter")
    tab.events.clear()
    yield tab
    assert rig.secret not in tab.js("document.documentElement.outerHTML + location.href")


def follow(tab: Chromium, words: str) -> None:
    """Tab to a link or a button, and press Enter."""
    reach(tab, words)
    with tab.loading():
        tab.press("Enter")


def reach(tab: Chromium, words: str) -> None:
    """Tab to a control by its words or its label."""
    for _ in range(200):
        tab.press("Tab")
        said = tab.js(
            "((e) => [e.labels?.[0]?.textContent, e.textContent.trim()].filter(Boolean).join())(document.activeElement)"
        )
        if words in said:
            return
    raise AssertionError(f"no Tab leads to {words}")


def show(tab: Chromium, rig: Rig, name: str) -> None:
    """Go to a page of that name."""
    base = f"{rig.url}/page"
    if name == "sign in":
        tab.call("Network.clearBrowserCookies")
        tab.go(base)
    elif name in {"subject", "rotate", "forget", "done"}:
        tab.go(f"{base}/subjects")
        with tab.loading():
            tab.js("[...document.querySelectorAll('tbody a')].find((e) => e.textContent === '<b>alice</b>').click()")
        if name == "subject":
            return
        action = "forget" if name == "done" else name
        with tab.loading():
            tab.js(f"document.querySelector('a[href$=\"/{action}\"]').click()")
        if name == "done":
            with tab.loading():
                tab.js("document.querySelector('#understood').click(); document.querySelector('.end').click()")
    elif name == "faces":
        tab.go(f"{base}/preview")
        tab.choose("#photo", PHOTO)
        with tab.loading():
            tab.js("document.querySelector('main button').click()")
    elif name == "verified":
        tab.go(f"{base}/audit")
        with tab.loading():
            tab.js("document.querySelector('main button').click()")
    else:
        tab.go(f"{base}/{name}" if name else base)
    assert tab.js("document.querySelector('h1').textContent.trim()"), name


PAGES = (
    "",
    "subjects",
    "subject",
    "rotate",
    "forget",
    "done",
    "preview",
    "faces",
    "drill",
    "audit",
    "verified",
    "nowhere",
)


@pytest.mark.parametrize("name", [*PAGES, "sign in"])
def test_every_page_fits_is_read_and_is_reached(signed_in: Chromium, rig: Rig, name: str) -> None:
    tab = signed_in
    rig.gateway.metrics.request("recognize", 403, "unknown_route", 0.1)
    show(tab, rig, name)
    rows = {}
    for width, dark in product((360, 1000), (False, True)):
        tab.window(width, dark=dark)
        assert tab.js("document.documentElement.scrollWidth") == width
        assert tab.js(WIDER) == []
        assert tab.js(FAINT) == []
        nodes = [each for each in tab.call("Accessibility.getFullAXTree")["nodes"] if not each["ignored"]]
        roles = [each["role"]["value"] for each in nodes]
        rows[width] = roles.count("row"), roles.count("columnheader"), roles.count("rowheader")
        assert {"banner", "main", "heading"} <= set(roles)
        assert ("navigation" in roles) is (name != "sign in")
        assert [
            each["role"]["value"] for each in nodes if each["role"]["value"] in NAMED and not each["name"]["value"]
        ] == []
    assert rows[360] == rows[1000]
    tab.window(360, motion=False)
    moving = "[...document.querySelectorAll('*')].some((e) => { const s = getComputedStyle(e);"
    assert not tab.js(f"{moving} return s.animationName !== 'none' || s.transitionDuration !== '0s' }})")
    count = tab.js(f"(window.all = [...document.querySelectorAll('{REACHED}')]).length")
    seen = set()
    for _ in range(2 * count + 4):
        tab.press("Tab")
        place, outlined = tab.js(FOCUSED)
        if place >= 0:
            seen.add(place)
            assert outlined
        if len(seen) == count:
            break
    assert seen == set(range(count))
    assert [each for each in tab.refused() if "404" not in each] == []


def test_a_violation_would_be_seen(signed_in: Chromium, rig: Rig) -> None:
    signed_in.js("new Image().src = 'http://127.0.0.1:9/x.png'")
    signed_in.until("window.violations?.length > 0")
    assert "img-src" in signed_in.refused()
    for script in ("document.body.innerHTML = '<b>x</b>'", "eval('1')"):
        caught = signed_in.js(f"(() => {{ try {{ {script} }} catch {{ return 'refused' }} }})()")
        assert caught == "refused" or "eval" in script


def test_a_key_is_rotated_by_keyboard_alone(signed_in: Chromium, rig: Rig) -> None:
    tab = signed_in
    follow(tab, "Subjects")
    reach(tab, "Part of the name")
    tab.write("alice")
    with tab.loading():
        tab.press("Enter")
    assert "alice" not in tab.js("location.href")
    follow(tab, "<b>alice</b>")
    follow(tab, "Rotate …")
    assert "What will follow" in tab.js("document.body.innerText")
    assert rig.keystore.current("<b>alice</b>").version == 2
    reach(tab, "Rotate: <b>alice</b>")
    tab.press("Enter")  # not yet: what can't be undone is not ticked
    assert tab.js("document.activeElement.id") == "understood"
    tab.press(" ")
    follow(tab, "Rotate: <b>alice</b>")
    assert "version 3 counts from now on" in tab.js("document.querySelector('[role=status]').textContent")
    assert rig.keystore.current("<b>alice</b>").version == 3
    follow(tab, "Sign out")
    assert "signed out" in tab.js("document.body.innerText")
    assert tab.refused() == []


def test_a_photo_is_dropped_or_chosen_by_keyboard(signed_in: Chromium, rig: Rig) -> None:
    tab = signed_in
    tab.go(f"{rig.url}/page/preview")
    with tab.loading():
        tab.drop(PHOTO, 300, 400)
    captions = "[...document.querySelectorAll('figcaption')].map((e) => e.textContent)"
    assert [each.partition(":")[0] for each in tab.js(captions)] == ["Today", "Next"]
    assert tab.js("[...document.images].every((e) => e.complete && e.naturalWidth === 512)")
    tab.go(f"{rig.url}/page/preview")
    tab.call("Page.setInterceptFileChooserDialog", enabled=True)
    reach(tab, "Photo")
    tab.press("Enter")
    chooser = tab.event("Page.fileChooserOpened")
    tab.call("Page.setInterceptFileChooserDialog", enabled=False)
    tab.call("DOM.setFileInputFiles", files=[str(PHOTO)], backendNodeId=chooser["backendNodeId"])
    follow(tab, "Show both faces")
    assert len(tab.js(captions)) == 2
    assert tab.refused() == []
    assert rig.keystore.current("<b>alice</b>").version == 2


def test_figures_follow_by_themselves_until_they_are_paused_or_the_session_ends(signed_in: Chromium, rig: Rig) -> None:
    tab = signed_in
    hasty = "const patient = setInterval; window.setInterval = (act, pause) => patient(act, pause / 10)"
    added = tab.call("Page.addScriptToEvaluateOnNewDocument", source=hasty)
    show(tab, rig, "")
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    tab.js("window.same = true")
    total = "document.querySelector('[data-figure=total]').textContent"
    rig.gateway.metrics.request("recognize", 403, "unknown_route", 0.1)
    tab.until(f"{total} === '1'")
    assert tab.js("document.querySelector('[data-rows] th').textContent") == "unknown_route"
    follow_button = "document.querySelector('button.plain[type=button]')"
    tab.js(f"{follow_button}.click()")
    asked = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/figures')).length"
    before = tab.js(asked)
    tab.js("new Promise((done) => setTimeout(done, 600))")
    assert tab.js(asked) == before
    tab.js(f"{follow_button}.click()")
    tab.until(f"{asked} > {before}")
    assert tab.js("window.same")
    rig.tokens.revoke(rig.token.id)
    tab.until("document.body?.innerText.includes('session has ended')")


def test_without_scripts_everything_but_dropping_works(signed_in: Chromium, rig: Rig) -> None:
    tab = signed_in
    tab.scripts(on=False)
    show(tab, rig, "")
    assert tab.js("document.querySelectorAll('[data-live] button').length") == 0
    rig.gateway.metrics.request("recognize", 403, "unknown_route", 0.1)
    follow(tab, "Refresh")
    assert tab.js("document.querySelector('[data-figure=total]').textContent") == "1"
    show(tab, rig, "faces")
    assert tab.js("document.images.length") == 2
    show(tab, rig, "done")
    assert "Forgotten" in tab.js("document.body.innerText")
    show(tab, rig, "verified")
    assert "Nothing is wrong" in tab.js("document.body.innerText")


def colours(dark: bool) -> dict[str, Any]:
    light, night = re.findall(r":root \{([^}]*)\}", STYLE.read_text())
    found = dict(re.findall(r"--(\w+): #(\w{6});", night if dark else light))
    return {name: [int(value[place : place + 2], 16) for place in (0, 2, 4)] for name, value in found.items()}


def contrast(one: list[int], other: list[int]) -> float:
    def luminance(colour: list[int]) -> float:
        parts = [each / 255 for each in colour]
        red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_the_colours_are_told_apart(dark: bool) -> None:
    """WCAG 2.2: 4.5 for text (1.4.3), 3 for the edges of controls and the focus (1.4.11)."""
    known = colours(dark)
    texts = [*product(("ink", "quiet", "act", "bad"), ("paper", "soft")), ("on", "act"), ("on", "bad")]
    for one, other in texts:
        assert contrast(known[one], known[other]) >= 4.5, (one, other)
    for one, other in product(("edge", "act", "bad"), ("paper", "soft")):
        assert contrast(known[one], known[other]) >= 3, (one, other)
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
