"""Adapters where subjects are enrolled from several photos, and where a scope keeps sealed references."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remembering import RememberingMixer
from test_conformance import LOCAL, loaded

from anonymix_adapters import opencv as opencv_adapter
from anonymix_adapters.candidates import search_candidates
from anonymix_adapters.drill import drill
from anonymix_adapters.interceptor import Interceptor, MixerAround
from anonymix_adapters.renewal import keep_original, renew, sealed_original
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import EnrolmentInfo, KeyFileUnlock, Keystore
from anonymix_lab.studies.adapters import measure
from anonymix_lab.studies.searching import timed_searches
from anonymix_plugin import Anonymixer, CancelableFace, DifferentPeopleError, UsageError, anonymixer
from anonymix_plugin.images import PhotoSource


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
    folder = tmp_path_factory.mktemp("references")
    unlock = KeyFileUnlock.generate(folder / "unlock.key")
    with Keystore.create(folder / "keystore.db", unlock) as made:
        made.originals.enable(KeyFileUnlock.generate(folder / "second.key"))
        made.references.enable("door")
        yield made


@pytest.fixture(scope="module")
def mixer(store: Keystore, core_mixer: RememberingMixer) -> Iterator[Anonymixer]:
    """A mixer of the parts that the other tests have compiled, over a store that keeps references."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymixer, "assemble", lambda options: core_mixer.mixer._parts)
        with Anonymixer(store) as made:
            yield made


def same(one: CancelableFace, other: CancelableFace) -> bool:
    return one.pixels.tobytes() == other.pixels.tobytes()


@pytest.mark.parametrize("scope", ["default", "door"])
def test_calls_inside_hand_on_one_face_from_all_photos(mixer: Anonymixer, londoners: list[Person], scope: str) -> None:
    interceptor, other = (Interceptor(mixer, name, scope=scope) for name in ("one", "other"))
    mine: list[PhotoSource] = [londoners[0].enrolled, londoners[0].probe]
    with interceptor.together("zoe", [*mine, londoners[1].enrolled]) as entry:
        assert (entry.photos, entry.left_out, entry.guided) == (2, (2,), scope == "door")
        found = [interceptor.protect(photo, interceptor.whose(argument="zoe")) for photo in mine]
        found.append(asyncio.run(interceptor.protect_async(mine[1], interceptor.whose())))
        assert all(same(face, entry) for face in found)
        assert found[0].box != found[1].box  # where the face was is each photo's own
        assert found[1].source == str(mine[1])
        assert not same(other.protect(mine[0], other.whose(argument="zoe")), entry)
        with pytest.raises(UsageError, match="two different people"):
            interceptor.whose(argument="yan")
    after = interceptor.protect(mine[0], interceptor.whose(argument="zoe"))
    assert not same(after, entry)
    assert after.guided == (scope == "door")


def test_photos_of_different_people_enrol_nobody(mixer: Anonymixer, londoners: list[Person]) -> None:
    interceptor = Interceptor(mixer, "x")
    photos: list[PhotoSource] = [londoners[0].enrolled, londoners[1].enrolled]
    with pytest.raises(DifferentPeopleError), interceptor.together("xeno", photos):
        pytest.fail("the block was entered")
    with pytest.raises(UsageError, match="no photo"), interceptor.together("xeno", []):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("keys", ["own", "gallery"])
def test_a_hosts_own_enrolment_takes_several_photos(mixer: Anonymixer, londoners: list[Person], keys: str) -> None:
    interceptor = Interceptor(mixer, "host", keys=keys, scope=f"host {keys}")  # type: ignore[arg-type]
    photos: list[PhotoSource] = [londoners[0].enrolled, londoners[0].probe]
    made: list[CancelableFace] = []
    with interceptor.enrolment("wim", collection="c", external_id=lambda: "wim-1", photos=photos):
        made.append(interceptor.protect(photos[1], interceptor.whose()))
    assert made[0].photos == 2
    (record,) = interceptor.entries("c")
    assert (record.external_id, record.gallery) == ("wim-1", keys == "gallery")
    single = interceptor.protect(photos[1], interceptor.whose(argument="wim"))
    assert single.photos == 1
    assert not same(single, made[0])


@pytest.mark.parametrize("sealed", [False, True])
def test_a_renewal_from_several_photos_makes_entry_and_reference_again(
    mixer: Anonymixer, store: Keystore, londoners: list[Person], sealed: bool
) -> None:
    subject, collection = f"vic {sealed}", f"c {sealed}"
    interceptor = Interceptor(mixer, "renewing", scope="door")
    photos: list[PhotoSource] = [londoners[0].enrolled, londoners[0].probe]
    held: dict[str, CancelableFace] = {}

    def enrol(item: EnrolmentInfo, photo: PhotoSource) -> None:
        name = f"{item.subject} {item.current_version}"
        with interceptor.enrolment(item.subject, collection=collection, external_id=name):
            held[name] = interceptor.protect(photo, interceptor.whose())

    with interceptor.enrolment(subject, collection=collection, external_id=f"{subject} 1", photos=photos):
        held[f"{subject} 1"] = interceptor.protect(photos[0], interceptor.whose())
    if sealed:
        keep_original(interceptor, [*photos, photos[0]], interceptor.whose(argument=subject))
        keep_original(interceptor, photos, interceptor.whose(argument=subject))
        assert store.originals.labels(subject, scope="door") == ("adapter", "adapter 2")
    assert interceptor.due(collection) == []  # a guided entry is up to date
    store.rotate(subject, "door", reason="breach")
    photo = sealed_original(interceptor) if sealed else (lambda _: photos)
    done = renew(
        interceptor, delete=lambda item: held.pop(item.external_id), enrol=enrol, photo=photo, collection=collection
    )
    assert (done.enrolled, done.failures) == ((subject,), ())
    (entry,) = held.values()
    assert (entry.photos, entry.guided, entry.key_version) == (2, True, 2)
    probe = interceptor.protect(photos[0], interceptor.whose(argument=subject))
    assert probe.guided
    assert interceptor.due(collection) == []


def test_a_drill_passes_with_probes_that_are_guided(mixer: Anonymixer, londoners: list[Person], tmp_path: Path) -> None:
    people = [Person(f"guided drill {it.name}", it.enrolled, it.probe) for it in londoners[:2]]
    report = drill(opencv_adapter, mixer, people, originals=True, references=True)
    assert report.passed, report.to_text()
    assert report.guided
    assert report.fingerprint == mixer.guided_fingerprint
    assert "guided by sealed references" in report.to_text()
    steps = {step.name: step.count for step in report.steps}
    assert steps["impostors accepted, who claim to be the next person"] == 0


@pytest.mark.long
def test_what_is_measured_behind_an_adapter_can_be_guided(mixer: Anonymixer, londoners: list[Person]) -> None:
    people = [Person(f"measured {it.name}", it.enrolled, it.probe) for it in londoners[:2]]
    found = measure(opencv_adapter, mixer, people, claims=1, calls=1, references=True)
    assert (found.guided, found.genuine, found.claiming) == (True, (2, 2), (0, 2))


@pytest.mark.long
def test_what_a_search_costs_is_measured_behind_an_adapter(mixer: Anonymixer, londoners: list[Person]) -> None:
    people = [Person(f"searched {it.name}", it.enrolled, it.probe) for it in londoners[:3]]
    costs = timed_searches(opencv_adapter, mixer, people, (1, 3))
    assert [(cost.candidates, cost.found) for cost in costs] == [(1, True), (3, True)]
    assert costs[0].ms < costs[1].ms


class Watched(MixerAround):
    """A mixer that notes which of its faces a reference had a say in."""

    def __init__(self, mixer: Anonymixer) -> None:
        super().__init__(mixer)
        self.guided: list[bool] = []

    def protect(self, image: PhotoSource, **how: Any) -> Any:
        face = super().protect(image, **how)
        self.guided.append(face.guided)
        return face


@pytest.mark.parametrize("name", LOCAL)
def test_claims_behind_each_recogniser_are_guided(name: str, mixer: Anonymixer, londoners: list[Person]) -> None:
    watched, (person, stranger) = Watched(mixer), londoners[:2]
    with loaded(name).rehearse(watched, scope="door") as stage:
        subject = f"guided behind {name}"
        stage.enrol(subject, person.enrolled)
        assert stage.verify(subject, person.probe).accepted
        assert not stage.verify(subject, stranger.probe).accepted
        (entry,) = stage.interceptor.entries(stage.collection)
    assert entry.fingerprint == mixer.guided_fingerprint
    assert len(watched.guided) >= 3
    assert all(watched.guided)


def test_a_search_over_candidates_is_guided_by_each_ones_reference(
    mixer: Anonymixer, store: Keystore, londoners: list[Person]
) -> None:
    with opencv_adapter.rehearse(mixer, scope="door") as stage:
        for person in londoners[:3]:
            stage.enrol(f"candidate {person.name}", person.enrolled)
        names = [f"candidate {person.name}" for person in londoners[:3]]
        found = search_candidates(stage.verify, londoners[1].probe, names)
    assert found.subject == names[1]
