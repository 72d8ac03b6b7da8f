"""A gateway with its page and no back end, over a keystore with a few people in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from gateway_rig import served
from recording_upstream import QuickMixer

from anonymix_adapters.gateway import Callers, Gateway, Tokens
from anonymix_adapters.gateway.page import Page
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock

PEOPLE = Path(__file__).parents[1] / "people"
PHOTO = PEOPLE / "alex_1.jpg"
CHEAP = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
EVERYTHING = ("administer", "audit")


class Rig:
    """A gateway without a back end, over a keystore with a few people in it."""

    def __init__(self, keystore: Keystore, tokens: Tokens, url: str, gateway: Gateway) -> None:
        self.keystore, self.tokens, self.url, self.gateway = keystore, tokens, url, gateway

    @contextmanager
    def browser(self, *rights: str, **how: Any) -> Iterator[httpx2.Client]:
        """A browser that is signed in."""
        self.secret, self.token = self.tokens.create(rights, **how)
        with httpx2.Client(base_url=self.url, follow_redirects=True, timeout=120) as client:
            answer = client.post("/page/in", data={"token": self.secret})
            assert answer.status_code == 200, answer.text
            yield client


@contextmanager
def new_store(folder: Path) -> Iterator[Keystore]:
    with Keystore.create(folder / "keystore.db", PassphraseUnlock("swordfish", cost=CHEAP)) as made:
        yield made


@contextmanager
def rig_over(store: Keystore, mixer: Any = None, **how: Any) -> Iterator[Rig]:
    tokens = Tokens(store.path.with_name("tokens.json"))
    mixer = mixer or QuickMixer(store)
    gateway = Gateway(None, Callers(None), api_callers=Callers(tokens), more=lambda it: Page(it, mixer, **how).routes())
    with served(gateway.app) as url:
        yield Rig(store, tokens, url, gateway)


def enrol(store: Keystore, subject: str, entry: str, *, scope: str = "default", gallery: bool = False) -> None:
    store.record_enrolment(
        subject,
        scope,
        adapter="compreface",
        collection="staff",
        external_id=entry,
        version=1,
        fingerprint=QuickMixer.fingerprint,
        gallery=gallery,
    )


def people(store: Keystore) -> None:
    """A gallery key, a subject with a name that looks like markup, and one who has no key of its own."""
    store.gallery()
    store.issue("<b>alice</b>")
    enrol(store, "<b>alice</b>", "entry-1")
    enrol(store, "visitor", "entry-2", gallery=True)
