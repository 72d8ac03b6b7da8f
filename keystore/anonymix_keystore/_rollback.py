"""Accepting an old file knowingly: what was revoked since stays revoked, and so does what can't be told from it."""

from __future__ import annotations

from anonymix_keystore import _audit, _lifecycle
from anonymix_keystore._core import Core
from anonymix_keystore._errors import AnchorError
from anonymix_keystore._lifecycle import Ending
from anonymix_keystore._rows import HEADS, State

_ORPHANS = "SELECT DISTINCT tag FROM keys WHERE wrapped IS NOT NULL AND tag NOT IN (SELECT tag FROM heads)"


def accept(core: Core, reason: str) -> int:
    """Destroy the keys that the anchor says were revoked, and step past its epoch.

    Returns:
        How many living keys were destroyed.
    """
    state = core.anchor.read() if core.anchor is not None else None
    if core.anchor is None or state is None:
        raise AnchorError("a rollback can only be accepted against an anchor")
    state.check(core.keys)
    revoked: dict[bytes, set[int]] = {}
    for alias, version in core.anchor.revoked():
        revoked.setdefault(bytes(alias), set()).add(version)
    with core.change() as change:
        destroyed = []
        for head, weight in HEADS.sound(change.db, change.keys):
            versions = revoked.get(head.alias, set())
            living = [
                (key, key_weight)
                for key, key_weight in _lifecycle.keys_to_end(change, [head.tag])
                if key.wrapped is not None and versions & {0, key.version}
            ]
            _lifecycle.end_all(change, living, Ending(State.DESTROYED))
            if head.active in {key.version for key, _ in living}:
                change.update_all(HEADS, [(head._replace(active=0), weight)])
            destroyed += [[head.alias.hex(), key.version, 0] for key, _ in living]
        # Whose head is damaged or gone may have been revoked, and whoever took it away may put it back.
        headless = [record[0] for record in HEADS.damaged(change.db, change.keys)]
        headless += [tag for (tag,) in change.db.rows(_ORPHANS)]
        ended = len(_lifecycle.end_headless(change, headless, Ending(State.DESTROYED)))
        before = change.header.epoch
        change.skip_to(state.epoch)
        change.note(
            _audit.ACCEPT_ROLLBACK,
            before=before,
            anchor=state.epoch,
            head=state.head.hex(),
            keys=destroyed,
            reason=reason,
            **({"headless": ended} if ended else {}),
        )
    return len(destroyed) + ended
