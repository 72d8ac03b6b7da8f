"""Of several renewals of one collection, on however many machines, one is at work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from patience import PATIENCE, eventually
from service_rig import ServiceRig

from anonymix_keystore import BusyError
from anonymix_plugin.keyservice import NotAllowedError, ServiceError, leases
from anonymix_plugin.keyservice.leases import Lease, Leases
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
    assert given.hold(KEY, "gone")

    def free() -> bool:
        with alone(renewal_lock(tmp_path / "keystore.db", *KEY)) as first:
            return first

    assert eventually(free)  # though nobody asked the service
    assert given.hold(KEY, "another")
    given.close()
    assert free()


def test_only_its_holder_ends_a_lease(tmp_path: Path) -> None:
    given = Leases(tmp_path / "keystore.db")
    assert given.hold(KEY, "one")
    given.end(KEY, "another")
    assert not given.hold(KEY, "another")
    given.end(KEY, "one")
    assert given.hold(KEY, "another")
    given.close()


def test_there_are_not_more_leases_than_files_that_may_be_open(tmp_path: Path) -> None:
    given = Leases(tmp_path / "keystore.db")
    assert all(given.hold(("folder", str(number)), "one") for number in range(64))
    with pytest.raises(BusyError):
        given.hold(("folder", "64"), "one")
    assert given.hold(("folder", "7"), "one")
    given.close()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_EVERY", 0.005)


@pytest.mark.usefixtures("fast")
def test_a_holder_goes_on_asking_and_knows_when_somebody_else_has_it() -> None:
    asked: list[tuple[str, bool]] = []
    answers = {"held": True}
    several = threading.Event()

    def ask(holder: str, end: bool) -> bool:
        asked.append((holder, end))
        if len(asked) == 5:
            several.set()
        return answers["held"]

    with Lease(ask) as lease:
        assert several.wait(PATIENCE)
        assert lease.held
        answers["held"] = False
        assert eventually(lambda: not lease.held)
        answers["held"] = True
        assert not lease.held  # what was lost in between is not known
    assert len({holder for holder, _ in asked}) == 1
    assert not any(end for _, end in asked)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("outage", ["short", "long"])
def test_a_service_that_is_away_for_too_long_is_a_lease_that_is_lost(
    monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    now, failures = [100.0], threading.Semaphore(0)
    away = [False]

    def ask(_: str, end: bool) -> bool:
        if away[0]:
            failures.release()
            raise ServiceError("gone")
        return not end

    monkeypatch.setattr(leases, "ticking", lambda: now[0])
    with Lease(ask) as lease:
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
