from __future__ import annotations

from dataclasses import replace

import pytest

from anonymix_keystore import (
    EnrolmentInfo,
    InvalidRequestError,
    KeyRevokedError,
    Keystore,
    NewEnrolment,
    UnknownSubjectError,
    UnknownVersionError,
)


def enrol(store: Keystore, subject: str, entry: str, **options: object) -> str:
    facts = {"adapter": "dlib", "collection": "c", "version": 1, "fingerprint": "f1", **options}
    return store.record_enrolment(subject, external_id=entry, **facts)  # type: ignore[arg-type]


def work(store: Keystore, **options: str) -> dict[str, tuple[bool, bool, str]]:
    return {item.external_id: (item.delete, item.enrol, item.why) for item in store.due(**options)}


def only(items: list[EnrolmentInfo]) -> EnrolmentInfo:
    assert len(items) == 1
    return items[0]


def test_a_record_holds_what_an_adapter_needs(store: Keystore) -> None:
    store.issue("alice", "staff")
    entry = store.record_enrolment(
        "alice",
        "staff",
        adapter="rekognition",
        collection="doors",
        external_id="e1",
        version=1,
        fingerprint="f1",
    )
    info = only(list(store.enrolments()))
    assert (info.entry, info.subject, info.scope) == (entry, "alice", "staff")
    assert (info.adapter, info.collection, info.external_id) == ("rekognition", "doors", "e1")
    assert (info.version, info.fingerprint, info.current_version, info.gallery) == (1, "f1", 1, False)
    assert (info.delete, info.enrol, info.why) == (False, False, "")
    assert list(store.due()) == []
    assert list(store.enrolments("nowhere")) == []
    assert only(list(store.enrolments("staff"))) == info


def test_the_records_of_one_subject_are_looked_up(store: Keystore) -> None:
    for subject in ("alice", "bob"):
        store.issue(subject)
        enrol(store, subject, f"{subject} 1")
    store.gallery()
    enrol(store, "alice", "alice 2", gallery=True)
    store.issue("alice", "staff")
    enrol(store, "alice", "alice 3", scope="staff")
    names = lambda found: sorted(item.external_id for item in found)  # noqa: E731
    assert names(store.enrolments_of("alice")) == ["alice 1", "alice 2"]
    assert names(store.enrolments_of("alice", "staff")) == ["alice 3"]
    assert names(store.gallery_enrolments()) == ["alice 2"]
    assert names(store.enrolments_of("carol")) == names(store.enrolments_of("alice", "nowhere")) == []
    assert only(list(store.enrolments_of("bob", fingerprint="f2"))).why == "mixer"
    assert {item.why for item in store.enrolments(fingerprint="f2")} == {"mixer"}


def test_the_versions_of_a_gallery_key_are_listed_and_none_is_issued(store: Keystore) -> None:
    with pytest.raises(UnknownSubjectError):
        store.gallery_history()
    store.gallery()
    store.rotate_gallery()
    assert [info.version for info in store.gallery_history()] == [1, 2]


def test_rotation_makes_deletion_and_new_enrolment_due(store: Keystore) -> None:
    store.issue("alice")
    store.issue("bob")
    enrol(store, "alice", "a")
    enrol(store, "bob", "b")
    store.rotate("alice")
    assert work(store) == {"a": (True, True, "retired")}
    store.rotate("bob", reason="breach")
    assert work(store)["b"] == (True, True, "compromised")


def test_after_revocation_only_deletion_is_due(store: Keystore) -> None:
    store.issue("alice")
    entry = enrol(store, "alice", "a")
    store.revoke("alice")
    assert work(store) == {"a": (True, False, "destroyed")}
    assert store.mark_removed(entry)
    assert list(store.enrolments()) == []


def test_the_work_list_empties_in_either_order(store: Keystore) -> None:
    for name in ("alice", "bob"):
        store.issue(name)
        enrol(store, name, f"old-{name}")
        store.rotate(name)
    first = {item.subject: item.entry for item in store.due()}
    # delete first, then enrol
    assert store.mark_removed(first["alice"])
    assert store.mark_removed(first["alice"])
    assert work(store)["old-alice"] == (False, True, "retired")
    enrol(store, "alice", "new-alice", version=2)
    assert "old-alice" not in work(store)
    # enrol first, then delete
    enrol(store, "bob", "new-bob", version=2)
    enrol(store, "bob", "newer-bob", version=2)
    assert work(store) == {"old-bob": (True, False, "retired")}
    assert store.mark_removed(first["bob"])
    assert work(store) == {}
    assert {item.external_id for item in store.enrolments()} == {"new-alice", "new-bob", "newer-bob"}
    assert store.verify().ok


def test_another_collection_waits_for_its_own_enrolment(store: Keystore) -> None:
    store.issue("alice")
    enrol(store, "alice", "here")
    enrol(store, "alice", "there", collection="other")
    store.rotate("alice")
    enrol(store, "alice", "here-2", version=2)
    assert work(store) == {"here": (True, False, "retired"), "there": (True, True, "retired")}


def test_an_entry_that_is_overwritten_in_place_is_done(store: Keystore) -> None:
    store.issue("alice")
    entry = enrol(store, "alice", "a")
    store.rotate("alice")
    assert enrol(store, "alice", "a", version=2) == entry
    assert list(store.due()) == []
    assert len(list(store.enrolments())) == 1


def test_another_mixer_makes_entries_due(store: Keystore) -> None:
    store.issue("alice")
    enrol(store, "alice", "a")
    assert work(store) == {}
    assert work(store, fingerprint="f1") == {}
    assert work(store, fingerprint="f2") == {"a": (True, True, "mixer")}
    enrol(store, "alice", "b", fingerprint="f2")
    assert work(store, fingerprint="f2") == {"a": (True, False, "mixer")}


def test_entries_made_with_the_gallery_key_follow_the_gallery_key(store: Keystore) -> None:
    store.gallery("staff")
    store.record_enrolment(
        "alice",
        "staff",
        adapter="x",
        collection="c",
        external_id="g",
        version=1,
        fingerprint="f1",
        gallery=True,
    )
    assert only(list(store.enrolments("staff"))).gallery
    store.rotate_gallery("staff")
    assert only(list(store.due("staff"))).current_version == 2


def test_nothing_is_recorded_for_keys_that_may_not_enrol(store: Keystore) -> None:
    store.issue("alice")
    store.rotate("alice")
    with pytest.raises(KeyRevokedError):
        enrol(store, "alice", "a", version=1)
    for version in (0, 3):
        with pytest.raises(UnknownVersionError):
            enrol(store, "alice", "a", version=version)
    with pytest.raises(UnknownSubjectError):
        enrol(store, "nobody", "a")
    for field in ("adapter", "collection", "fingerprint"):
        with pytest.raises(InvalidRequestError):
            enrol(store, "alice", "a", version=2, **{field: ""})
    with pytest.raises(InvalidRequestError):
        enrol(store, "alice", "", version=2)
    assert list(store.enrolments()) == []


def test_marking_what_is_not_recorded_changes_nothing(store: Keystore) -> None:
    epoch = store.epoch
    assert not store.mark_removed("00" * 32)
    with pytest.raises(InvalidRequestError):
        store.mark_removed("no hex")
    assert store.epoch == epoch


def test_a_long_work_list_can_be_left_and_taken_up(store: Keystore) -> None:
    names = [f"s{number}" for number in range(30)]
    store.issue_many(names)
    for name in names:
        enrol(store, name, f"e-{name}")
    store.rotate_all(reason="breach")
    for item in list(store.due())[:10]:
        store.mark_removed(item.entry)
        enrol(store, item.subject, item.external_id + "-new", version=2)
    assert len(list(store.due())) == 20
    for item in store.due():
        store.mark_removed(item.entry)
        enrol(store, item.subject, item.external_id + "-new", version=2)
    assert list(store.due()) == []
    assert len(list(store.enrolments())) == 30


def test_long_lists_go_on_page_by_page(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    from anonymix_keystore import _audit, _enrolments

    monkeypatch.setattr(_enrolments, "PAGE", 2)
    monkeypatch.setattr(_audit, "PAGE", 2)
    store.issue("alice")
    for number in range(5):
        enrol(store, "alice", f"e{number}")
    assert {item.external_id for item in store.enrolments()} == {f"e{number}" for number in range(5)}
    assert [line["seq"] for line in store.audit()] == list(range(1, 8))


def test_an_entry_is_looked_up_however_many_there_are(store: Keystore) -> None:
    store.issue("alice")
    for number in range(40):
        store.record_enrolment("alice", adapter="x", collection="c", external_id=number, version=1, fingerprint="f")
    read: list[str] = []
    store._core._db.raw.conn.set_trace_callback(read.append)
    found = store.enrolment(adapter="x", collection="c", external_id=0)
    store._core._db.raw.conn.set_trace_callback(None)
    assert found is not None
    assert (found.external_id, found.subject, found.version) == ("0", "alice", 1)
    plan = store._core._db.rows("EXPLAIN QUERY PLAN " + next(sql for sql in read if "FROM enrolments" in sql))
    assert not any("SCAN" in row[-1] for row in plan)
    for other in ({"adapter": "y"}, {"collection": "d"}, {"external_id": 41}):
        assert store.enrolment(**{"adapter": "x", "collection": "c", "external_id": 0, **other}) is None


def test_entries_of_guided_and_unguided_faces_of_one_mixer_are_up_to_date(store: Keystore) -> None:
    version = store.issue("alice").version
    for entry, made in (("plain", "f"), ("guided", "g"), ("old", "h")):
        store.record_enrolment(
            "alice", adapter="x", collection=entry, external_id=entry, version=version, fingerprint=made
        )
    names = {"fingerprint": "f", "guided_fingerprint": "g"}
    assert {item.external_id: item.why for item in store.due(**names)} == {"old": "mixer"}
    assert {item.external_id for item in store.due(fingerprint="f")} == {"guided", "old"}
    job = store.rewrap_all().job
    assert {work.collection for work in store.report(job, **names).work} == {"old"}


def test_many_entries_are_written_down_in_one_step_or_none_of_them(store: Keystore) -> None:
    store.issue_many(["alice", "bob"])
    store.gallery()
    entry = NewEnrolment("alice", "default", "dlib", "doors", "a-1", 1, "f1")
    many = [entry, replace(entry, subject="bob", external_id="b-1"), replace(entry, external_id="g-1", gallery=True)]
    names = store.record_enrolments(many)
    assert [store.enrolment_named(name).external_id for name in names] == ["a-1", "b-1", "g-1"]  # type: ignore[union-attr]
    assert [it.gallery for it in store.enrolments()].count(True) == 1
    assert store.record_enrolments(many[:1]) == names[:1]
    assert store.record_enrolments([]) == ()
    store.rotate("bob")
    new = replace(entry, external_id="a-2")
    with pytest.raises(KeyRevokedError):
        store.record_enrolments([new, replace(new, subject="bob", external_id="b-2")])
    assert store.enrolment(adapter="dlib", collection="doors", external_id="a-2") is None
    with pytest.raises(InvalidRequestError, match="no NewEnrolment"):
        store.record_enrolments(["a-2"])  # type: ignore[list-item]
    with pytest.raises(InvalidRequestError, match="adapter"):
        store.record_enrolments([replace(entry, adapter="")])
    assert store.verify().ok
