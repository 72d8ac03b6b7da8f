"""Names that look alike are one name, or none; what an earlier revision took stays usable."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from anonymix_keystore import (
    InvalidSubjectError,
    KeyFileUnlock,
    Keystore,
    PassphraseUnlock,
    UnknownSubjectError,
)

UNSEEN = [0xFE0F, 0x034F, 0x115F, 0x1160, 0x3164, 0x2800, 0xE0100, 0x17B4, 0x180B, 0x180F, 0xFFA0, 0x16FE4]
UNSEEN += [0x200B, 0x200D, 0x2060, 0xAD, 0xFEFF, 0x61C, 0x202E, 0xE0020, 0x0, 0x7F, 0x85, 0x2028, 0xE000]
BLANKS = [0xA0, 0x1680, 0x2000, 0x2003, 0x2009, 0x200A, 0x202F, 0x205F, 0x3000]
ODD = [f"al{chr(code)}ice" for code in UNSEEN + BLANKS] + [
    "al  ice",
    f"al {chr(0xA0)}ice",
    f"alice{chr(0xFE0F)}",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_names_that_look_like_anothers_are_refused(store: Keystore, name: str) -> None:
    store.originals.enable(PassphraseUnlock("other"))
    for make in (
        lambda: store.issue(name),
        lambda: store.issue("alice", name),
        lambda: store.current_or_issue(name),
        lambda: store.current(name),
        lambda: store.at("alice", 1, name),
        lambda: store.gallery(name),
        lambda: store.issue_many([name]),
        lambda: store.originals.keep("alice", b"face", label=name),
    ):
        with pytest.raises(InvalidSubjectError):
            make()
    assert list(store.list()) == []
    assert store.scopes() == ()


@pytest.mark.parametrize("name", ["Anna Berg", "Ångström", "日本 太郎", "🙂", "a-b_c.d@e", "ﬁ", "аlice", "नाम"])
def test_names_that_can_be_seen_are_taken(store: Keystore, name: str) -> None:
    store.issue(name, name)
    assert list(store.subjects(name)) == [unicodedata.normalize("NFC", name)]


def test_every_ignorable_character_is_refused(store: Keystore) -> None:
    # Those that this Python's Unicode knows under a name that says so.
    words = (
        "VARIATION SELECTOR",
        "ZERO WIDTH",
        "INVISIBLE",
        "GRAPHEME JOINER",
        "NO-BREAK SPACE",
        "GUL FILLER",
    )
    for code in range(0x110000):
        if any(word in unicodedata.name(chr(code), "") for word in words):
            with pytest.raises(InvalidSubjectError):
                store.issue(f"a{chr(code)}b")


def test_names_of_an_earlier_revision_stay_usable(
    path: Path, unlock: KeyFileUnlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = "al\u00a0ice\ufe0f"
    with monkeypatch.context() as patch:
        patch.setattr("anonymix_keystore._lifecycle.check_visible", lambda *_: None)
        with Keystore.create(path, unlock) as store:
            key = store.issue(old, "my  scope")
    with Keystore.open(path, unlock) as store:
        assert store.current(old, "my  scope") == key
        assert [info.subject for info in store.list("my  scope")] == [old]
        assert store.rotate(old, "my  scope").version == 2
        store.issue("another", "my  scope")
        assert store.verify().ok
        assert store.forget(old).clean
        with pytest.raises(InvalidSubjectError):
            store.issue(old, "my  scope")
        with pytest.raises(UnknownSubjectError):
            store.current("nobody", "my scope")


def test_the_label_of_an_original_is_one_in_every_spelling(store: Keystore) -> None:
    store.originals.enable(PassphraseUnlock("other"))
    store.originals.keep("alice", b"face", label="fac\u0065\u0301")
    assert store.originals.read("alice", label="fac\u00e9") == b"face"
    assert store.originals.labels("alice") == ("fac\u00e9",)


@pytest.mark.parametrize("name", ["", " alice", "alice\n", "a" * 2_000, "é" * 600, "a\u202eb", 7])
def test_a_name_that_is_refused_is_told_with_what_to_do(store: Keystore, name: str) -> None:
    with pytest.raises(InvalidSubjectError) as caught:
        store.issue(name)
    assert "no blanks around it" in caught.value.fix
