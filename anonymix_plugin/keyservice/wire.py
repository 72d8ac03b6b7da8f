"""What goes over the line: a line of JSON, then bytes that belong to nobody else: a key, or a reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from anonymix_keystore import (
    AnchorError,
    AnchorState,
    EnrolmentInfo,
    KeystoreError,
    RenewalInfo,
    RenewalState,
    RolledBackError,
)
from anonymix_plugin.keyservice.errors import ServiceError

MEDIA_TYPE: Final = "application/vnd.anonymix.keys"
PROBLEM_TYPE: Final = "application/problem+json"
MOST_BYTES: Final = 65_536
KEY_BYTES: Final = 32
_ID_BYTES: Final = 16


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A message of a head and bytes."""
    return json.dumps(head).encode() + b"\n" + body


def split(message: bytes | bytearray) -> tuple[bytes, memoryview]:
    """The head of a message, still JSON, and its bytes, which are not copied."""
    end = message.find(b"\n")
    end = len(message) if end < 0 else end
    return bytes(message[:end]), memoryview(message)[end + 1 :]


def state_text(state: AnchorState) -> str:
    """A store's state as text."""
    return f"{state.store_id.hex()}.{state.epoch}.{state.head.hex()}.{state.mac.hex()}"


def state_of(text: str) -> AnchorState:
    """A store's state from its text.

    Raises:
        ValueError: It is none.
    """
    store, epoch, head, mac = text.split(".")
    state = AnchorState(bytes.fromhex(store), int(epoch[:20]), bytes.fromhex(head), bytes.fromhex(mac))
    if len(state.store_id) != _ID_BYTES or state.epoch < 0:
        raise ValueError("no state of a store")
    return state


def enrolment_told(info: EnrolmentInfo) -> dict[str, Any]:
    """An enrolment record as JSON has it."""
    return asdict(info) | {"created": info.created.isoformat()}


def enrolment_of(told: Mapping[str, Any]) -> EnrolmentInfo:
    """An enrolment record from JSON."""
    return EnrolmentInfo(**{**told, "created": datetime.fromisoformat(told["created"])})


def renewal_told(info: RenewalInfo) -> dict[str, Any]:
    """How far a renewal is, as JSON has it."""
    return asdict(info) | {"changed": None if info.changed is None else info.changed.isoformat()}


def renewal_of(told: Mapping[str, Any]) -> RenewalInfo:
    """How far a renewal is, from JSON."""
    changed = told["changed"]
    known = {"state": RenewalState(told["state"]), "changed": changed and datetime.fromisoformat(changed)}
    return RenewalInfo(**{**told, **known})


def portions(items: Iterable[Any]) -> Iterator[list[Any]]:
    """The items, by as many as a request has room for beside another portion."""
    portion: list[Any] = []
    room = MOST_BYTES // 2 - 2048
    for item in items:
        size = len(json.dumps(item)) + 2
        if portion and size > room:
            yield portion
            portion, room = [], MOST_BYTES // 2 - 2048
        portion.append(item)
        room -= size
    if portion:
        yield portion


def _kinds(base: type[KeystoreError]) -> dict[str, type[KeystoreError]]:
    found = {base.code: base}
    for kind in base.__subclasses__():
        found |= _kinds(kind)
    return found


_FIX: Final[Mapping[type[KeystoreError], str]] = {
    RolledBackError: "on the machine of the store: put the current file back, or accept the old one by"
    " `anonymix keys status --accept-rollback REASON`",
    AnchorError: "see that the address is right; if the store was knowingly replaced, start this process anew,"
    " without the file that ANONYMIX_SERVICE_SEEN names",
}


def error_of(problem: Mapping[str, Any], where: str) -> KeystoreError:
    """The error that a problem document tells of, as the keystore would have raised it here."""
    kind = _kinds(KeystoreError).get(str(problem.get("code")), ServiceError)
    fix = _FIX.get(kind, str(problem.get("fix", ""))[:500])
    return kind(str(problem.get("detail", "the key service refused"))[:500], where=where, fix=fix)
