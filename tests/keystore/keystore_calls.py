"""Every public method of the keystore, called as an application would; tests walk over the list.

A method that is added to the class has to be added here: ``test_every_public_method_is_called`` says so.
"""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from anonymix_keystore import (
    AnchorFile,
    KeyFileUnlock,
    Keystore,
    KeystoreError,
    NewEnrolment,
    RenewalInfo,
    RenewalState,
    SubjectKey,
)
from anonymix_keystore._originals import Originals
from anonymix_keystore._references import References

SUBJECTS = 12


@dataclass
class Scene:
    """An open store with people in it, and what else the calls need."""

    store: Keystore
    folder: Path
    unlock: KeyFileUnlock
    second: KeyFileUnlock
    dice: random.Random = field(default_factory=lambda: random.Random(7))

    @classmethod
    def make(cls, folder: Path, **options: object) -> Scene:
        unlock = KeyFileUnlock.generate(folder / "unlock.key")
        second = KeyFileUnlock.generate(folder / "second.key")
        store = Keystore.create(folder / "store.db", unlock, **options)  # type: ignore[arg-type]
        store.issue_many(f"s{number}" for number in range(SUBJECTS))
        store.originals.enable(second)
        store.originals.keep("s0", b"face")
        store.references.enable()
        return cls(store, folder, unlock, second)

    @property
    def name(self) -> str:
        """Somebody who is known."""
        return f"s{self.dice.randrange(SUBJECTS)}"

    @property
    def fresh(self) -> str:
        """A name that was not used yet."""
        return f"x{self.dice.getrandbits(64):x}"

    def enrolled(self) -> str:
        """The record of a new entry."""
        store, name = self.store, self.fresh
        version = store.issue(name).version
        return store.record_enrolment(
            name, adapter="a", collection="c", external_id=name, version=version, fingerprint="f"
        )


Call = Callable[[Scene], object]


def _each(iterator: Iterator[object]) -> int:
    return sum(1 for _ in iterator)


def _attempts(*calls: Callable[[], object]) -> None:
    for call in calls:
        with contextlib.suppress(KeystoreError):
            call()


def _reopened(scene: Scene) -> None:
    Keystore.open(scene.store.path, scene.unlock).close()


def _created(scene: Scene) -> None:
    """Beside the store, and where it is already."""
    with contextlib.suppress(KeystoreError):
        Keystore.create(scene.store.path, scene.unlock)
    Keystore.create(scene.folder / f"{scene.fresh}.db", scene.unlock).close()


def _backed_up(scene: Scene) -> Path:
    target = scene.folder / f"{scene.fresh}.backup"
    scene.store.backup(target, scene.unlock)
    with contextlib.suppress(KeystoreError):
        scene.store.backup(scene.store.path, scene.unlock)
    return target


def _restored(scene: Scene) -> None:
    backup, path = _backed_up(scene), scene.store.path
    Keystore.restore(backup, scene.folder / f"{scene.fresh}.db", scene.unlock)
    _attempts(
        lambda: Keystore.restore(backup, path, scene.unlock),
        *(lambda name=name: Keystore.restore(name, scene.folder / "none", scene.unlock) for name in own(path)),
    )


def own(path: Path) -> list[Path]:
    """The files of a store."""
    return [path, Path(f"{path}-wal"), Path(f"{path}-shm")]


def _inspected(scene: Scene) -> None:
    Keystore.inspect_backup(_backed_up(scene))
    _attempts(*(lambda name=name: Keystore.inspect_backup(name) for name in own(scene.store.path)))


def _relocked(scene: Scene) -> None:
    scene.store.change_unlock(scene.unlock)
    # The store itself taken for a key file.
    _attempts(*(lambda name=name: scene.store.change_unlock(KeyFileUnlock(name)) for name in own(scene.store.path)))


def _exported(scene: Scene) -> io.StringIO:
    file = io.StringIO()
    scene.store.export_audit(file)
    file.seek(0)
    return file


def _tied(scene: Scene) -> None:
    scene.store.tie_anchor(AnchorFile.create(scene.folder / f"{scene.fresh}.anchor"))
    _attempts(
        lambda: scene.store.tie_anchor(AnchorFile(scene.store.path)),
        lambda: AnchorFile.create(scene.store.path),
    )


def _originals_again(scene: Scene) -> None:
    scene.store.originals.disable()
    scene.store.originals.enable(scene.second)
    scene.store.originals.keep("s0", b"face")
    scene.store.references.enable()


def _references_again(scene: Scene) -> None:
    scene.store.references.disable()
    scene.store.references.enable()


def _with_reference(scene: Scene) -> SubjectKey:
    key = scene.store.issue(scene.fresh)
    scene.store.references.keep(key, b"code", fingerprint="f", subspace="s")
    return key


def _for_somebody(scene: Scene) -> None:
    with scene.store.acting_for("somebody"):
        scene.store.issue(scene.fresh)


def _enrolled_together(scene: Scene) -> None:
    names = [scene.fresh, scene.fresh]
    scene.store.issue_many(names)
    scene.store.record_enrolments([NewEnrolment(name, "default", "a", "c", name, 1, "f") for name in names])


def _renewed(scene: Scene) -> None:
    entry = scene.enrolled()
    name = next(item.subject for item in scene.store.enrolments() if item.entry == entry)
    scene.store.write_renewals([RenewalInfo(name, "default", "a", "c", 1, "f", RenewalState.BEGUN)])


CALLS: dict[str, Call] = {
    "create": _created,
    "open": _reopened,
    "locked_by": lambda scene: Keystore.locked_by(scene.store.path),
    "path": lambda scene: scene.store.path,
    "epoch": lambda scene: scene.store.epoch,
    "unlock_outdated": lambda scene: scene.store.unlock_outdated,
    "unscrubbed": lambda scene: scene.store.unscrubbed,
    "change_unlock": _relocked,
    "originals": lambda scene: scene.store.originals.enabled(),
    "issue": lambda scene: scene.store.issue(scene.fresh),
    "issue_many": lambda scene: scene.store.issue_many([scene.fresh, scene.fresh, scene.name], batch=2),
    "current": lambda scene: scene.store.current(scene.name),
    "current_or_issue": lambda scene: scene.store.current_or_issue(scene.fresh),
    "at": lambda scene: scene.store.at("s0", scene.store.current("s0").version),
    "gallery": lambda scene: scene.store.gallery(),
    "rotate": lambda scene: scene.store.rotate(scene.name, reason=scene.dice.choice(["routine", "breach"])),
    "rotate_gallery": lambda scene: (scene.store.gallery(), scene.store.rotate_gallery()),
    "retire": lambda scene: scene.store.retire(scene.store.issue(scene.fresh).subject),
    "revoke": lambda scene: scene.store.revoke(scene.store.issue(scene.fresh).subject),
    "revoke_gallery": lambda scene: (
        (scene.store.gallery("other"), scene.store.revoke_gallery("other"))
        if "other" not in scene.store.scopes()
        else scene.store.revoke_gallery("other")
    ),
    "subjects": lambda scene: _each(scene.store.subjects()),
    "scopes": lambda scene: scene.store.scopes(),
    "list": lambda scene: _each(scene.store.list()),
    "history": lambda scene: scene.store.history(scene.name),
    "gallery_history": lambda scene: scene.store.gallery() and scene.store.gallery_history(),
    "rotate_all": lambda scene: scene.store.rotate_all(
        subjects=[scene.name], reason=scene.dice.choice(["routine", "breach"])
    ),
    "rewrap_all": lambda scene: scene.store.rewrap_all(),
    "resume": lambda scene: scene.store.resume(),
    "jobs": lambda scene: scene.store.jobs(),
    "report": lambda scene: [scene.store.report(job.job) for job in scene.store.jobs()[:1]],
    "record_enrolment": Scene.enrolled,
    "record_enrolments": _enrolled_together,
    "mark_removed": lambda scene: scene.store.mark_removed(scene.enrolled()),
    "enrolment": lambda scene: scene.store.enrolment(adapter="x", collection="c", external_id="e"),
    "enrolments": lambda scene: _each(scene.store.enrolments()),
    "enrolments_of": lambda scene: _each(scene.store.enrolments_of(scene.name)),
    "gallery_enrolments": lambda scene: _each(scene.store.gallery_enrolments()),
    "due": lambda scene: _each(scene.store.due(fingerprint="other")),
    "write_renewals": _renewed,
    "renewal": lambda scene: scene.store.renewal(scene.name, adapter="a", collection="c"),
    "renewals": lambda scene: _each(scene.store.renewals(adapter="a", collection="c")),
    "audit": lambda scene: _each(scene.store.audit()),
    "export_audit": _exported,
    "check_audit_export": lambda scene: scene.store.check_audit_export(_exported(scene)),
    "verify": lambda scene: scene.store.verify(),
    "enrolment_named": lambda scene: scene.store.enrolment_named(scene.enrolled()),
    "acting_for": _for_somebody,
    "check_state": lambda scene: scene.store.check_state(scene.store.anchor_state()),
    "anchor_state": lambda scene: scene.store.anchor_state(),
    "tie_anchor": _tied,
    "forget": lambda scene: scene.store.forget(scene.store.issue(scene.fresh).subject),
    "take_back": lambda scene: scene.store.take_back(scene.store.current_or_issue(scene.fresh).subject),
    "accept_damage": lambda scene: scene.store.accept_damage("looked into"),
    "unused_since": lambda scene: _each(scene.store.unused_since()),
    "forget_unused": lambda scene: _each(scene.store.forget_unused(timedelta(days=1))),
    "expire": lambda scene: scene.store.expire(),
    "backup": _backed_up,
    "restore": _restored,
    "inspect_backup": _inspected,
    "originals.enabled": lambda scene: scene.store.originals.enabled(),
    "originals.enable": _originals_again,
    "originals.disable": _originals_again,
    "originals.unlock": lambda scene: scene.store.originals.unlock(scene.second),
    "originals.lock": lambda scene: (
        scene.store.originals.lock(),
        scene.store.originals.unlock(scene.second),
    ),
    "originals.change_unlock": lambda scene: scene.store.originals.change_unlock(scene.second, scene.second),
    "originals.keep": lambda scene: scene.store.originals.keep(scene.name, b"face"),
    "originals.read": lambda scene: scene.store.originals.read("s0"),
    "originals.labels": lambda scene: scene.store.originals.labels("s0"),
    "originals.drop": lambda scene: (
        scene.store.originals.keep("s1", b"face"),
        scene.store.originals.drop("s1"),
    ),
    "originals.locked_by": lambda scene: scene.store.originals.locked_by(),
    "originals.unlocked": lambda scene: scene.store.originals.unlocked(),
    "references": lambda scene: scene.store.references.scopes(),
    "references.scopes": lambda scene: scene.store.references.scopes(),
    "references.enabled": lambda scene: scene.store.references.enabled(),
    "references.enable": _references_again,
    "references.disable": _references_again,
    "references.keep": _with_reference,
    "references.read": lambda scene: scene.store.references.read(_with_reference(scene), fingerprint="f", subspace="s"),
    "references.drop": lambda scene: scene.store.references.drop(_with_reference(scene).subject),
    "references.put_back": lambda scene: scene.store.references.put_back(_with_reference(scene)),
    "close": lambda scene: scene.store.close(),  # the last one
}


def public() -> set[str]:
    """The names of all public methods and properties."""
    names = {name for name in dir(Keystore) if not name.startswith("_")}
    for prefix, part in (("originals", Originals), ("references", References)):
        names |= {f"{prefix}.{name}" for name in dir(part) if not name.startswith("_")}
    return names
