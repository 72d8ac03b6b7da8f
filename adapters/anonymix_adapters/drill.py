"""The breach drill: what happens when templates leak, rehearsed on a back end of its own.

Enrol people, verify them, leak the templates, rotate all keys, see that leaked templates and old entries
match nobody, delete the old entries, enrol everybody again, verify again. The keystore is a temporary one, and
so is the back end; nothing of the host's is touched.
"""

from __future__ import annotations

import inspect
import json
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from anonymix_adapters.errors import AdapterError, asked_to_stop, in_words
from anonymix_adapters.interceptor import FaceMixer, KeyUse
from anonymix_adapters.protocol import Adapter, Answer, Rehearsal
from anonymix_adapters.registry import load
from anonymix_adapters.renewal import Photos, Renewal, keep_original, renew, sealed_original
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import EnrolmentInfo, KeyFileUnlock, Keystore, KeystoreError
from anonymix_plugin.errors import AnonymixError, UsageError
from anonymix_plugin.images import PHOTO_SUFFIXES

GENUINE: Final = 0.95
"""Least share of genuine probes that must be accepted."""

PHOTOS: Final = 0.005
"""Chance that a recogniser takes a photo and a drawn face for one person, rounded up (docs/results.md)."""

DRAWN: Final = 0.04
"""Chance that a recogniser whose threshold stands at FMR .1 % on photos takes two strangers' drawn faces, or
one person's under two keys, for one person, rounded up (docs/results.md)."""

_LUCK: Final = 1e-3  # a step fails where chance alone would let as many match less often than this


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Step:
    """One step of a drill.

    Attributes:
        name: What was done.
        count: How many times it happened, or was accepted.
        of: Of how many.
        wanted: What is asked for, in words.
        passed: Whether that was so.
        seconds: How long it took.
    """

    name: str
    count: int
    of: int
    wanted: str
    passed: bool
    seconds: float


@dataclass(frozen=True)
class DrillReport:
    """What a drill showed.

    Attributes:
        adapter: Name of the adapter.
        sdks: Versions of the packages behind it.
        fingerprint: Mixer fingerprint.
        keys: "own" or "gallery".
        people: How many took part.
        renewed_from: "new photos" or "sealed originals".
        date: When (UTC), ISO 8601.
        steps: The steps, in order.
        failures: What went wrong on the way, in words.
        guided: Whether the keystore kept sealed references, so that probes were guided.
    """

    adapter: str
    sdks: Mapping[str, str]
    fingerprint: str
    keys: str
    people: int
    renewed_from: str
    date: str
    steps: tuple[Step, ...]
    failures: tuple[str, ...] = field(default=())
    guided: bool = False

    @property
    def passed(self) -> bool:
        """Whether all steps passed and nothing went wrong."""
        return not self.failures and all(step.passed for step in self.steps)

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps({**asdict(self), "passed": self.passed}, indent=2)

    def to_text(self) -> str:
        """The report as text."""
        versions = ", ".join(f"{name} {version}" for name, version in self.sdks.items()) or "no package"
        lines = [
            f"Breach drill of {self.adapter} ({versions}), {self.people} people, keys: {self.keys}",
            f"  mixer {self.fingerprint}, {self.date}, enrolled again from {self.renewed_from}"
            + (", probes guided by sealed references" if self.guided else ""),
        ]
        for step in self.steps:
            mark = "ok  " if step.passed else "FAIL"
            lines.append(f"  {mark} {step.name}: {step.count} of {step.of} ({step.wanted}; {step.seconds:.1f} s)")
        lines += [f"  FAIL {failure}" for failure in self.failures]
        lines.append("The drill passed." if self.passed else "The drill FAILED.")
        return "\n".join(lines)


def people_in(folder: Path, count: int) -> list[Person]:
    """People with two photos each from a folder.

    Args:
        folder: Holds a folder for each person with two photos or more, or files `NAME_anything.jpg`, two or
            more of a name.
        count: How many people are wanted; the first ones by name.

    Raises:
        UsageError: There are not as many.
    """
    if not folder.is_dir():
        raise UsageError("this is no folder", where=str(folder), fix="give a folder of photos, two a person")
    photos: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file():
            inner = path.parent.relative_to(folder).as_posix()
            name = inner if inner != "." else path.stem.rpartition("_")[0] or path.stem
            photos.setdefault(name, []).append(path)
    found = [Person(name, paths[0], paths[1]) for name, paths in photos.items() if len(paths) > 1]
    if len(found) < count or count < 2:
        raise UsageError(
            f"{len(found)} people with two photos each, where {max(count, 2)} are wanted",
            where=str(folder),
            fix="a folder for each person, or files NAME_1.jpg and NAME_2.jpg; or ask for fewer (--people N)",
        )
    return found[:count]


def drill(
    adapter: Adapter,
    mixer: FaceMixer,
    people: Sequence[Person],
    *,
    keys: KeyUse = "own",
    originals: bool = False,
    references: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> DrillReport:
    """Rehearse a breach.

    Args:
        adapter: The adapter.
        mixer: Over a keystore that is for this drill alone: all its keys are rotated.
        people: Who takes part; the second photo is the probe and, unless `originals`, the new photo.
        keys: "own" or "gallery".
        originals: Enrol again from originals sealed in the keystore, which must be switched on and unlocked.
        references: Keep sealed references, so that probes are guided. The second secret must be unlocked.
        options: For the adapter's `rehearse`.
        progress: Called with a step's name, how many are done, and of how many.

    Raises:
        AdapterError: The mixer's keys do not come from a Keystore, or the back end could not be made ready.
        UsageError: The adapter's `rehearse` has no such option.
    """
    store = mixer.keystore
    if not isinstance(store, Keystore):
        raise AdapterError("a drill needs a Keystore of its own", where=adapter.NAME)
    guided = references and keys == "own"  # a gallery key is nobody's, and has no reference
    failures: list[str] = []
    with ExitStack() as stack:
        with _making_ready(adapter, options or {}):
            stage = stack.enter_context(adapter.rehearse(mixer, keys=keys, **(options or {})))
            if references:
                store.references.enable(stage.interceptor.scope(stage.collection), reason="drill")
            run = _Run(stage, people, progress, originals=originals)
        try:
            run.before()
            store.rotate_all(reason="breach")
            run.after()
        except (Exception, SystemExit) as error:
            if asked_to_stop(error):
                raise
            failures.append(f"stopped: {in_words(error)}")
        try:
            stack.close()
        except Exception as error:  # noqa: BLE001 - an SDK may raise whatever it likes
            failures.append(f"what was made for the drill could not be taken away: {in_words(error)}")
    return DrillReport(
        adapter=adapter.NAME,
        sdks={sdk.module: sdk.installed() for sdk in adapter.SDKS},
        fingerprint=str(getattr(mixer, "guided_fingerprint", "")) if guided else mixer.fingerprint,
        keys=keys,
        people=len(people),
        renewed_from="sealed originals" if originals else "new photos",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        steps=tuple(run.steps),
        failures=(*failures, *run.failures),
        guided=guided,
    )


@contextmanager
def _making_ready(adapter: Adapter, options: Mapping[str, Any]) -> Iterator[None]:
    """Say in words what an SDK says where it finds no address, credentials, region or service."""
    known = {name: it for name, it in inspect.signature(adapter.rehearse).parameters.items() if name != "keys"}
    named = [name for name, it in known.items() if it.kind is it.KEYWORD_ONLY]
    for name in options:
        if name not in named and not any(it.kind is it.VAR_KEYWORD for it in known.values()):
            raise UsageError(f"there is no option {name!r}", where=adapter.NAME, fix=f"use {', '.join(named)}")
    try:
        yield
    except (AnonymixError, KeystoreError):
        raise
    except Exception as error:
        raise AdapterError(
            f"the back end could not be made ready: {in_words(error)}",
            where=adapter.NAME,
            fix="check address, region and credentials in the environment, and that the service answers",
        ) from error


class _Run:
    def __init__(
        self, stage: Rehearsal, people: Sequence[Person], progress: Progress | None, *, originals: bool
    ) -> None:
        self._stage, self._people, self._progress, self._originals = stage, people, progress, originals
        self._leaked = stage.leak()
        self.steps: list[Step] = []
        self.failures: list[str] = []

    def before(self) -> None:
        stage = self._stage
        self._each("people enrolled", self._enrol, at_least=1.0)
        self._each("people verified", lambda it: stage.verify(it.name, it.probe).accepted, at_least=GENUINE)
        # What the back end's threshold lets pass, breach or not: told, not judged.
        self._each("impostors accepted, who claim to be the next person", lambda it: self._impostor(it).accepted)
        self._each(
            "original photos matched by the back end",
            lambda it: stage.verify_original(it.name, it.probe).accepted,
            at_most=PHOTOS,
        )
        if stage.searches:
            self._each("people found by search", lambda it: stage.search(it.probe).subject == it.name, at_least=0.9)
        self._leaked = stage.leak()
        self._add("templates leaked", len(self._leaked), len(self._people), "all", 0.0, at_least=1.0)

    def after(self) -> None:
        stage, new = self._stage, {person.name: person.probe for person in self._people}
        self._each(
            "old entries that match after the rotation",
            lambda it: stage.verify(it.name, it.probe).accepted,
            at_most=DRAWN,
        )
        old = set(stage.entries())
        started = time.perf_counter()
        gone = renew(stage.interceptor, delete=lambda item: stage.delete(item.external_id), collection=stage.collection)
        left = len(old & set(stage.entries()))
        self._add(
            "old entries deleted at the back end",
            len(old) - left,
            len(old),
            "all",
            time.perf_counter() - started,
            at_least=1.0,
        )
        photo: Callable[[EnrolmentInfo], Photos | None]
        photo = sealed_original(stage.interceptor) if self._originals else (lambda item: new[item.subject])
        started = time.perf_counter()
        done = renew(
            stage.interceptor,
            delete=lambda item: stage.delete(item.external_id),
            enrol=lambda item, picture: stage.enrol(item.subject, picture),
            photo=photo,
            collection=stage.collection,
        )
        self._add(
            "people enrolled again",
            len(done.enrolled),
            len(self._people),
            "all",
            time.perf_counter() - started,
            at_least=1.0,
        )
        self._fail(gone, done)
        # Enrolled again from the second photo, a person is verified with the first.
        self._each(
            "people verified again",
            lambda it: stage.verify(it.name, it.probe if self._originals else it.enrolled).accepted,
            at_least=GENUINE,
        )
        templates = {it.subject: it for it in self._leaked}
        self._each(
            "leaked templates that match after the renewal",
            lambda it: it.name in templates and stage.match(templates[it.name], it.name).accepted,
            at_most=DRAWN,
        )
        due = len(stage.interceptor.due(stage.collection))
        self._add("entries still due", due, len(self._people), "none", 0.0, at_most=0.0)

    def _enrol(self, person: Person) -> bool:
        self._stage.enrol(person.name, person.enrolled)
        if self._originals:
            whose = self._stage.interceptor.whose(argument=person.name, collection=self._stage.collection)
            keep_original(self._stage.interceptor, person.enrolled, whose)
        return True

    def _impostor(self, person: Person) -> Answer:
        other = self._people[(self._people.index(person) + 1) % len(self._people)]
        return self._stage.verify(person.name, other.probe)

    def _each(
        self,
        name: str,
        act: Callable[[Person], bool],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        started, count = time.perf_counter(), 0
        for number, person in enumerate(self._people, 1):
            try:
                count += act(person)
            except (Exception, SystemExit) as error:
                if asked_to_stop(error):
                    raise
                self.failures.append(f"{name}: {person.name}: {in_words(error)}")
            if self._progress is not None:
                self._progress(name, number, len(self._people))
        wanted = "told, not judged"
        if at_least is not None:
            wanted = f"at least {at_least:.0%}"
        elif at_most is not None:
            wanted = f"at most {_allowed(at_most, len(self._people))}"
        self._add(
            name,
            count,
            len(self._people),
            wanted,
            time.perf_counter() - started,
            at_least=at_least,
            at_most=at_most,
        )

    def _add(
        self,
        name: str,
        count: int,
        of: int,
        wanted: str,
        seconds: float,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        passed = count >= (at_least or 0.0) * of - 1e-9
        if at_most is not None:
            passed = count <= _allowed(at_most, of)
        self.steps.append(Step(name, count, of, wanted, passed, round(seconds, 3)))

    def _fail(self, *renewals: Renewal) -> None:
        for renewal in renewals:
            self.failures += [f"renewal: {who}, {entry}: {why}" for who, entry, why in renewal.failures]


def _allowed(chance: float, of: int) -> int:
    """Return the most matches among `of` people that chance accounts for, by the binomial distribution.

    All of them are never allowed, however few there are.
    """
    if not chance:
        return 0
    allowed, left = -1, 1.0
    while left > _LUCK:
        allowed += 1
        left -= math.comb(of, allowed) * chance**allowed * (1 - chance) ** (of - allowed)
    return min(allowed, of - 1)


class SharedMixer(Protocol):
    """A mixer whose weights others may use under keys of their own; `anonymix_plugin.Anonymixer` meets it."""

    def with_keystore(self, keystore: Keystore) -> FaceMixer:
        """The same mixer over other keys."""
        ...


@contextmanager
def temporary_mixer(*, second_secret: bool = False, weights_of: SharedMixer | None = None) -> Iterator[FaceMixer]:
    """A mixer over a keystore that lives as long as the block.

    Args:
        second_secret: Whether it may keep sealed originals and references.
        weights_of: Whose weights it uses, and whose options; without it the default mixer is opened.

    Raises:
        ModelError: Weights are missing or damaged.
    """
    from anonymix_plugin.anonymixer import Anonymixer

    with tempfile.TemporaryDirectory() as folder:
        unlock = KeyFileUnlock.generate(Path(folder) / "drill.key")
        with Keystore.create(Path(folder) / "drill.db", unlock, actor="drill") as store:
            if second_secret:
                store.originals.enable(KeyFileUnlock.generate(Path(folder) / "originals.key"))
            if weights_of is not None:
                yield weights_of.with_keystore(store)
                return
            with Anonymixer(store) as mixer:
                yield mixer


def run(
    adapter: str,
    photos: Path,
    *,
    people: int = 20,
    keys: KeyUse = "own",
    originals: bool = False,
    references: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    mixer: SharedMixer | None = None,
) -> DrillReport:
    """A drill with everything it needs; what `anonymix drill` calls.

    Args:
        adapter: Name of the adapter.
        photos: Folder of photos, two a person; see `people_in`.
        people: How many people.
        keys: "own" or "gallery".
        originals: Enrol again from sealed originals.
        references: Keep sealed references, so that probes are guided.
        options: For the adapter's `rehearse`.
        progress: As for `drill`.
        mixer: One that is open already, whose weights and options are used, and none of its keys.

    Raises:
        UnknownAdapterError, SdkMissingError, SdkVersionError: The adapter can't be used here.
        UsageError: The photos do not do.
    """
    chosen = load(adapter)
    taking_part = people_in(photos, people)
    for sdk in chosen.SDKS:
        sdk.check()
    with temporary_mixer(second_secret=originals or references, weights_of=mixer) as own:
        # Names that no record of a real application has.
        run_id = secrets.token_hex(3)
        named = [Person(f"drill-{run_id}-{it.name}", it.enrolled, it.probe) for it in taking_part]
        try:
            return drill(
                chosen,
                own,
                named,
                keys=keys,
                originals=originals,
                references=references,
                options=options,
                progress=progress,
            )
        except SystemExit as error:
            raise AdapterError(
                f"a package behind it tried to end the process, with exit code {error.code or 0}",
                where=adapter,
            ) from error
