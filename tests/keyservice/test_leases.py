"""Of several renewals of one collection, on however many machines, one is at work."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from patience import PATIENCE, eventually
from service_rig import ServiceRig

from anonymix_keystore import BusyError, InvalidRequestError, NewEnrolment, RenewalInfo, RenewalState
from anonymix_plugin.keyservice import LeaseError, NotAllowedError, ServiceError, leases
from anonymix_plugin.keyservice.leases import Lease, Leases, Step, renewing_beside
from anonymix_plugin.locks import alone, renewal_lock

PLACE = {"adapter": "folder", "collection": "doors"}
KEY = ("folder", "doors")


def test_over_the_service_and_beside_the_store_one_renewal_keeps_all_others_out(rig: ServiceRig) -> None:
    first, second = rig.client("gate-1"), rig.client("gate-2")
    beside = renewal_lock(rig.store, **PLACE)
    with first.renewing(**PLACE) as mine:
        assert mine.held
        for other in (second, first):  # another process may well have the same certificate
            with other.renewing(**PLACE) as theirs:
                assert not theirs.held
        assert mine.held
        with alone(beside) as free:
            assert not free
        with second.renewing(adapter="folder", collection="windows") as elsewhere:
            assert elsewhere.held
    with alone(beside) as free:
        assert free
        with second.renewing(**PLACE) as theirs:
            assert not theirs.held
    with second.renewing(**PLACE) as theirs:
        assert theirs.held
    with pytest.raises(NotAllowedError), rig.client("reader").renewing(**PLACE):
        pass


def test_a_lease_ends_by_itself_where_its_holder_is_gone(tmp_path: Path) -> None:
    given = Leases(tmp_path / "keystore.db", seconds=0.05)
    assert given.hold(KEY, "gate", "gone")

    def free() -> bool:
        with alone(renewal_lock(tmp_path / "keystore.db", *KEY)) as first:
            return first

    assert eventually(free)  # though nobody asked the service
    assert given.hold(KEY, "gate", "another")
    given.close()
    assert free()


def test_only_its_holder_ends_a_lease(tmp_path: Path) -> None:
    given = Leases(tmp_path / "keystore.db")
    assert given.hold(KEY, "gate", "one")
    given.end(KEY, "gate", "another")
    assert not given.hold(KEY, "gate", "another")
    given.end(KEY, "gate", "one")
    assert given.hold(KEY, "gate", "another")
    given.close()


def test_there_are_not_more_leases_than_files_that_may_be_open(tmp_path: Path) -> None:
    given = Leases(tmp_path / "keystore.db")
    for client in range(4):
        assert all(given.hold((str(client), str(number)), str(client), "one") for number in range(16))
        with pytest.raises(BusyError):
            given.hold((str(client), "16"), str(client), "two")  # one client doesn't take them all
    with pytest.raises(BusyError):
        given.hold(("folder", "64"), "4", "one")
    assert given.hold(("2", "7"), "2", "one")
    given.close()


def test_no_thread_and_no_file_is_left_however_often_is_asked(tmp_path: Path) -> None:
    given, threads = Leases(tmp_path / "keystore.db"), threading.active_count()
    for number in range(200):
        place = ("folder", f"{number}" * 1000 + "\ud800\0")
        assert given.hold(place, "gate", "one")
        assert given.hold(place, "gate", "one")
        assert not given.hold(("never", str(number)), "gate", "one", begin=False)
        assert threading.active_count() <= threads + 1
        given.end(place, "gate", "one")
    assert list(tmp_path.iterdir()) == []
    given.close()
    assert eventually(lambda: threading.active_count() == threads)


def test_a_service_that_is_started_anew_lets_the_holder_go_on_and_nobody_else_begin(tmp_path: Path) -> None:
    store, another = tmp_path / "keystore.db", ("gate-2", "another")
    fresh = Leases(store)
    assert fresh.hold(KEY, "gate", "one")
    for _ in range(2):
        fresh.close()
        fresh = Leases(store)
        assert not fresh.hold(KEY, *another)
        assert fresh.hold(KEY, "gate", "one", begin=False)
    fresh.close()
    fresh = Leases(store)
    fresh.end(KEY, "gate", "one")
    assert list(tmp_path.iterdir()) == []
    assert fresh.hold(KEY, "gate", "one")
    fresh.close()
    fresh = Leases(store, seconds=0.05)
    assert not fresh.hold(KEY, *another)
    assert eventually(lambda: fresh.hold(KEY, *another))  # the first holder did not come back
    assert not fresh.hold(KEY, "gate", "one", begin=False)
    fresh.end(KEY, *another)
    assert not fresh.hold(KEY, "gate", "one", begin=False)  # somebody else may have been at work in between
    assert list(tmp_path.iterdir()) == []


def test_a_renewal_beside_the_store_waits_for_one_that_a_killed_service_let_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, waited = tmp_path / "keystore.db", []
    given = Leases(store)
    given.hold(KEY, "gate", "one")
    given.close()

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        assert not Leases(store).hold(KEY, "gate", "one", begin=False)

    monkeypatch.setattr("anonymix_plugin.keyservice.leases.time.sleep", sleep)
    for _ in range(2):
        with renewing_beside(store, *KEY) as first:
            assert first
    assert waited == [leases.SECONDS]
    assert list(tmp_path.iterdir()) == []


def test_what_a_renewal_without_its_lease_writes_down_is_refused(rig: ServiceRig) -> None:
    first, second = rig.client("gate-1"), rig.client("gate-2")
    entry = NewEnrolment("alice", "staff", *KEY, "e-1", 1, "f")
    begun = RenewalInfo("alice", "staff", *KEY, 1, "f", RenewalState.BEGUN)
    with first.renewing(**PLACE) as mine:
        first.record_enrolments([entry], lease=mine)
        first.write_renewals([begun], lease=mine)
        with pytest.raises(InvalidRequestError, match="own collection"):
            first.record_enrolments([replace(entry, collection="windows")], lease=mine)
        with pytest.raises(LeaseError):
            second.record_enrolments([entry], lease=mine)
        rig.stop(signal.SIGKILL)
        rig.start()
        with second.renewing(**PLACE) as theirs:
            assert not theirs.held
        first.write_renewals([replace(begun, state=RenewalState.DONE)], lease=mine)
        lost = {**PLACE, "holder": mine.holder, "step": "end"}  # as after a stop that outlasted it
        assert rig.raw("lease", lost)[0] == 200
        for _ in range(2):
            for write in (
                lambda: first.record_enrolments([replace(entry, external_id="e-2")], lease=mine),
                lambda: first.write_renewals([begun], lease=mine),
            ):
                with pytest.raises(LeaseError, match="may be at work"):
                    write()
            with second.renewing(**PLACE) as theirs:
                assert theirs.held
    assert [it.external_id for it in first.enrolments()] == ["e-1"]
    assert [it.state for it in first.renewals(**PLACE)] == [RenewalState.DONE]


@pytest.mark.parametrize("name", ["adapter", "collection", "holder"])
def test_odd_names_of_leases_are_no_surprise_to_the_service(rig: ServiceRig, name: str) -> None:
    for text, wanted in (("x" * 60_000, {200, 422}), ("\ud800", {200, 422}), ("../..\0/x", {200}), ("", {200})):
        ask = {**PLACE, "holder": "h", name: text}
        assert rig.raw("lease", ask)[0] in wanted
        rig.raw("lease", ask | {"step": "end"})
    assert rig.raw("lease", PLACE | {"step": "take"})[0] == 422
    assert [path.name for path in rig.folder.iterdir() if "renewal" in path.name] == []


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_EVERY", 0.005)


@pytest.mark.usefixtures("fast")
def test_a_holder_goes_on_asking_and_knows_when_somebody_else_has_it() -> None:
    asked: list[tuple[str, Step]] = []
    answers = {"held": True}
    several = threading.Event()

    def ask(holder: str, step: Step) -> bool:
        asked.append((holder, step))
        if len(asked) == 5:
            several.set()
        return answers["held"]

    with Lease(ask, PLACE) as lease:
        assert several.wait(PATIENCE)
        assert lease.held
        answers["held"] = False
        assert eventually(lambda: not lease.held)
        answers["held"] = True
        assert not lease.held  # what was lost in between is not known
    assert len({holder for holder, _ in asked}) == 1
    assert [step for _, step in asked[:2]] == ["begin", "go on"]
    assert "end" not in dict(asked).values()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("outage", ["short", "long"])
def test_a_service_that_is_away_for_too_long_is_a_lease_that_is_lost(
    monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    now, failures = [100.0], threading.Semaphore(0)
    away = [False]

    def ask(_: str, step: Step) -> bool:
        if away[0]:
            failures.release()
            raise ServiceError("gone")
        return step != "end"

    monkeypatch.setattr(leases, "ticking", lambda: now[0])
    with Lease(ask, PLACE) as lease:
        away[0] = True
        assert failures.acquire(timeout=PATIENCE)
        assert lease.held
        now[0] += 25.0 if outage == "long" else 15.0
        assert lease.held == (outage == "short")
        away[0] = False
        if outage == "short":
            assert eventually(lambda: lease._until == 135.0)
        else:
            assert eventually(lambda: not lease._thread.is_alive())
        assert lease.held == (outage == "short")
