"""A source of keys on another machine."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from anonymix_keystore import (
    AnchorError,
    DamagedError,
    EnrolmentInfo,
    InvalidRequestError,
    KeyState,
    Keystore,
    KeystoreError,
    NewEnrolment,
    RenewalInfo,
    RenewalState,
    RolledBackError,
    SubjectKey,
)
from anonymix_plugin.errors import UsageError
from anonymix_plugin.keys import as_text
from anonymix_plugin.keyservice.address import service_address
from anonymix_plugin.keyservice.errors import NotOfferedError, ServiceError
from anonymix_plugin.keyservice.leases import Lease, Step
from anonymix_plugin.keyservice.line import Line, ServiceCredentials
from anonymix_plugin.keyservice.memory import Kept, Memory, Tag, ticking
from anonymix_plugin.keyservice.seen import Seen
from anonymix_plugin.keyservice.wire import (
    KEY_BYTES,
    MOST_BYTES,
    enrolment_of,
    pack,
    portions,
    renewal_of,
    renewal_told,
    split,
    state_of,
    state_text,
)
from anonymix_plugin.places import named_by

SEEN_VARIABLE: Final = "ANONYMIX_SERVICE_SEEN"
MOST_AGE: Final = 5.0


class RemoteKeystore:
    """The keys of a store on another machine, by its key service; it meets `KeySource`.

    One object may be used by many threads; each process opens its own. A key that was had is used again for
    `cache_age` seconds from the moment it was asked for: so long does a revocation take to be honoured, this
    object's own excepted. Whatever goes wrong is raised, as errors derived from `KeystoreError`: those of the store
    itself, `NotAllowedError` where the client has no right, `ServiceError` where there is no answer. The next call
    tries again.

    What only the machine of the store does (backup, audit, bulk rotation, forgetting, sealed originals, ...) raises
    `NotOfferedError`.

    Args:
        address: "https://HOST:PORT".
        credentials: The client's certificate; the environment names one by default.
        cache_age: Seconds, 0 to 5.
        cache_size: Keys kept in memory, 0 for none.
        timeout: Seconds that a connection, and each wait for an answer, may take.
        seen: A file of this machine that remembers how far the store was, so that an older one is refused after a
            restart, too; what ANONYMIX_SERVICE_SEEN names by default, or else none.

    Raises:
        AnchorError: That file is damaged.
        UsageError: A value is out of range.
        ConfigurationError: No certificate is named.
    """

    def __init__(
        self,
        address: str,
        credentials: ServiceCredentials | None = None,
        *,
        cache_age: float = 3.0,
        cache_size: int = 4096,
        timeout: float = 5.0,
        seen: str | os.PathLike[str] | None = None,
    ) -> None:
        found = service_address(address)
        if found is None:
            raise UsageError("this is no address of a key service", where="address", fix="give https://HOST:PORT")
        if not 0 <= cache_age <= MOST_AGE:
            raise UsageError(f"a key is kept for 0 to {MOST_AGE:g} seconds", where="cache_age")
        if not 0 < timeout <= 60:
            raise UsageError("an answer is waited for 0 to 60 seconds", where="timeout")
        self._line = Line(*found, credentials or ServiceCredentials.from_environment(), timeout)
        self._age, self._memory = cache_age, Memory(cache_size)
        self._seen = Seen(named_by(SEEN_VARIABLE) if seen is None else Path(seen))

    def __repr__(self) -> str:
        return f"RemoteKeystore({self._line.where!r})"

    def __getattr__(self, name: str) -> NoReturn:
        if not name.startswith("_") and hasattr(Keystore, name):
            raise NotOfferedError(
                f"the key service does not offer `{name}`",
                where=self._line.where,
                fix="do it on the machine of the store, by `anonymix keys` or anonymix_keystore.Keystore",
            )
        raise AttributeError(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the keys that are kept, and close all connections. A forked child leaves them to its parent."""
        if self._line.inherited:
            return
        self._memory.clear()
        self._line.close()
        self._seen.close()

    @property
    def epoch(self) -> int:
        """Number of the last line of the store's audit trail, asked for now."""
        told, _ = self._ask("state", {}, again=True)
        return state_of(told["state"]).epoch

    # --- keys -------------------------------------------------------------------------------------

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        """The active key of a subject; see `Keystore.current`."""
        return self._looked_up("current", as_text(subject, "subject"), as_text(scope, "scope"))

    def current_or_issue(self, subject: str, scope: str = "default") -> SubjectKey:
        """The active key of a subject, issued now if the subject is new; see `Keystore.current_or_issue`.

        Raises:
            NotAllowedError: The subject is new, and this client may not enrol.
        """
        return self._looked_up("current-or-issue", as_text(subject, "subject"), as_text(scope, "scope"))

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        """A certain version of a subject's key; see `Keystore.at`."""
        if version < 1:
            raise InvalidRequestError("a version is 1 or more", where="version")
        return self._looked_up("at", as_text(subject, "subject"), as_text(scope, "scope"), version)

    def gallery(self, scope: str = "default") -> SubjectKey:
        """The gallery key of a scope, issued at first use; see `Keystore.gallery`.

        Raises:
            NotAllowedError: There is none yet, and this client may not enrol.
        """
        return self._looked_up("gallery", None, as_text(scope, "scope"))

    def _looked_up(self, operation: str, subject: str | None, scope: str, version: int = 0) -> SubjectKey:
        self._line.check()
        kept = self._memory.get((subject, scope, version))
        if kept is not None:
            return kept[0]
        fields: dict[str, Any] = {"scope": scope}
        if subject is not None:
            fields["subject"] = subject
        if version:
            fields["version"] = version
        return self._key(operation, fields, again=True, tag=(subject, scope, version))

    def issue(self, subject: str, scope: str = "default", *, reason: str = "") -> SubjectKey:
        """Issue a key to a subject who has no active one; see `Keystore.issue`."""
        return self._key("issue", {"subject": subject, "scope": scope, "reason": reason})

    def rotate(
        self, subject: str, scope: str = "default", *, reason: str = "routine", grace: timedelta | None = None
    ) -> SubjectKey:
        """Replace a subject's key by the next version; see `Keystore.rotate`."""
        return self._key("rotate", {"subject": subject, "scope": scope, "reason": reason, "grace": _seconds(grace)})

    def rotate_gallery(
        self, scope: str = "default", *, reason: str = "routine", grace: timedelta | None = None
    ) -> SubjectKey:
        """Replace the gallery key of a scope; see `Keystore.rotate_gallery`."""
        return self._key("rotate-gallery", {"scope": scope, "reason": reason, "grace": _seconds(grace)})

    def revoke(
        self, subject: str, scope: str = "default", *, version: int | None = None, reason: str = ""
    ) -> tuple[int, ...]:
        """Destroy a subject's keys at once and for good; see `Keystore.revoke`."""
        fields = {"subject": subject, "scope": scope, "version": version, "reason": reason}
        return self._revoked("revoke", fields)

    def revoke_gallery(
        self, scope: str = "default", *, version: int | None = None, reason: str = ""
    ) -> tuple[int, ...]:
        """Destroy the gallery key of a scope; see `Keystore.revoke_gallery`."""
        return self._revoked("revoke-gallery", {"scope": scope, "version": version, "reason": reason})

    def _revoked(self, operation: str, fields: dict[str, Any]) -> tuple[int, ...]:
        try:
            told, _ = self._ask(operation, fields, again=True)
        finally:
            self._memory.clear()
        return tuple(told["versions"])

    # --- records ----------------------------------------------------------------------------------

    def record_enrolment(
        self,
        subject: str,
        scope: str = "default",
        *,
        adapter: str,
        collection: str,
        external_id: str,
        version: int,
        fingerprint: str,
        gallery: bool = False,
    ) -> str:
        """Write down that a back end holds an entry made with a key; see `Keystore.record_enrolment`."""
        fields = {
            "subject": subject,
            "scope": scope,
            "adapter": adapter,
            "collection": str(collection),
            "external_id": str(external_id),
            "version": version,
            "fingerprint": fingerprint,
            "gallery": gallery,
        }
        return str(self._ask("record-enrolment", fields, again=True)[0]["entry"])

    def record_enrolments(self, entries: Iterable[NewEnrolment], *, lease: Lease | None = None) -> tuple[str, ...]:
        """Write down many entries, by as many in one step as a request holds; see `Keystore.record_enrolments`.

        Args:
            entries: The entries.
            lease: Of a renewal, what it got from `renewing`; all entries are of that collection.

        Raises:
            LeaseError: The lease was lost.
        """
        names: list[str] = []
        for portion in portions(map(_entry_told, entries)):
            told, _ = self._ask("record-enrolments", {"entries": portion, **_under(lease)}, again=True)
            names += told["entries"]
        return tuple(names)

    def mark_removed(self, entry: str) -> bool:
        """Write down that an entry was deleted from its back end; see `Keystore.mark_removed`."""
        return bool(self._ask("mark-removed", {"entry": entry}, again=True)[0]["found"])

    def enrolment(self, *, adapter: str, collection: str, external_id: str) -> EnrolmentInfo | None:
        """The record of one entry, or None; see `Keystore.enrolment`."""
        fields = {"adapter": adapter, "collection": str(collection), "external_id": str(external_id)}
        told, _ = self._ask("enrolment", fields, again=True)
        return None if told["enrolment"] is None else enrolment_of(told["enrolment"])

    def enrolments(
        self,
        scope: str | None = None,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """The records in the client's scopes, page by page; see `Keystore.enrolments`.

        Raises:
            DamagedError: At the end: records of the store were passed over, whosesoever.
        """
        fields = {"scope": scope or "", "fingerprint": fingerprint, "guided_fingerprint": guided_fingerprint}
        what = "some enrolment records, or the keys that they were made with, fail authentication"
        yield from map(enrolment_of, self._pages("enrolments", fields | {"beyond": ""}, what))

    def _pages(self, operation: str, fields: dict[str, Any], what: str) -> Iterator[dict[str, Any]]:
        """The rows that an operation of that name lists; at the end what is wrong, if some were passed over."""
        damaged, more = False, True
        while more:
            told, _ = self._ask(operation, fields, again=True)
            damaged = damaged or told["damaged"]
            yield from told[operation]
            more = "beyond" in told
            fields = fields | {"beyond": told.get("beyond", "")}
        if damaged:
            fix = "on the machine of the store, `anonymix keys due` and `anonymix keys verify` say more"
            raise DamagedError(what, where=self._line.where, fix=fix)

    def due(
        self,
        scope: str | None = None,
        *,
        fingerprint: str | None = None,
        guided_fingerprint: str | None = None,
    ) -> Iterator[EnrolmentInfo]:
        """The records in the client's scopes that leave work; see `Keystore.due`."""
        known = {"fingerprint": fingerprint, "guided_fingerprint": guided_fingerprint}
        return (item for item in self.enrolments(scope, **known) if item.delete or item.enrol)

    def write_renewals(
        self, renewals: Iterable[RenewalInfo], *, removed: Iterable[str] = (), lease: Lease | None = None
    ) -> None:
        """Write down how far renewals are; see `Keystore.write_renewals`.

        What is more than a request holds is written in several steps, what was removed last.

        Args:
            renewals: How far they are.
            removed: Records of entries that were deleted.
            lease: As for `record_enrolments`.

        Raises:
            LeaseError: The lease was lost.
        """
        steps = [{"renewals": portion} for portion in portions(map(_renewal_asked, renewals))]
        gone = [{"removed": portion} for portion in portions(removed)]
        if len(steps) == len(gone) == 1:
            steps, gone = [steps[0] | gone[0]], []
        for fields in (*steps, *gone):
            self._ask("write-renewals", fields | _under(lease), again=True)

    def renewal(self, subject: str, scope: str = "default", *, adapter: str, collection: str) -> RenewalInfo | None:
        """How far the renewal of one subject is; see `Keystore.renewal`."""
        fields = {"subject": subject, "scope": scope, "adapter": adapter, "collection": str(collection)}
        told, _ = self._ask("renewal", fields, again=True)
        return None if told["renewal"] is None else renewal_of(told["renewal"])

    def renewals(
        self, *, adapter: str, collection: str, only: RenewalState | None = None, beyond: str = ""
    ) -> Iterator[RenewalInfo]:
        """The renewals of the client's scopes in a collection, page by page; see `Keystore.renewals`.

        Raises:
            DamagedError: At the end: renewals of the store were passed over, whosesoever.
        """
        place = {"adapter": adapter, "collection": str(collection)}
        what = "what was noted of some renewals fails authentication"
        yield from map(renewal_of, self._pages("renewals", place | {"state": only or "", "beyond": beyond}, what))

    def renewing(self, *, adapter: str, collection: str) -> Lease:
        """A lease for whoever renews a collection: a context manager that asks for it as long as its block lasts.

        `Lease.held` says whether nobody else renews it, over the service or beside the store.
        """
        place = {"adapter": adapter, "collection": str(collection)}

        def ask(holder: str, step: Step) -> bool:
            return bool(self._ask("lease", {**place, "holder": holder, "step": step}, again=True)[0]["held"])

        return Lease(ask, place)

    @property
    def references(self) -> RemoteReferences:
        """The sealed references of the store; they are opened there."""
        return RemoteReferences(self)

    def _keeps_references(self, key: SubjectKey) -> bool:
        """Whether a key's scope keeps references, as far as the key that is kept tells; True where none is."""
        for version in (0, key.version):
            kept = self._memory.get((key.subject, key.scope, version))
            if kept is not None:
                return kept[1]
        return True

    # --- asking -----------------------------------------------------------------------------------

    def _key(
        self, operation: str, fields: dict[str, Any], *, again: bool = False, tag: Tag | None = None
    ) -> SubjectKey:
        asked = ticking()
        told, content = self._ask(operation, fields, again=again)
        subject, scope = (unicodedata.normalize("NFC", fields.get(name, "")) for name in ("subject", "scope"))
        try:
            key, material = told["key"], bytearray(split(content)[1])
            if len(material) != KEY_BYTES or (key["subject"], key["scope"]) != (subject, scope):
                raise ValueError
            state, until = KeyState(key["state"]), asked + self._age
            kept = Kept(subject, scope, int(key["version"]), state, material, told["references"] is True, until)
        except (KeyError, TypeError, ValueError):
            raise self._senseless() from None
        finally:
            content[:] = bytes(len(content))
        made = kept.key()
        if tag is None:  # the key was changed: what is kept of it is of the past
            self._memory.clear()
            kept.wipe()
        else:
            self._memory.put(tag, kept)
        return made

    def _ask(
        self, operation: str, fields: dict[str, Any], body: bytes = b"", *, again: bool
    ) -> tuple[dict[str, Any], bytearray]:
        """Ask, and see that the store is not older than it was.

        Returns:
            The answer's head, and the whole answer.
        """
        seen = self._seen.state
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            message = pack(given | ({} if seen is None else {"seen": state_text(seen)}), body)
        except TypeError:
            raise InvalidRequestError("a value is of another type than the call takes", where=operation) from None
        if len(message) > MOST_BYTES:
            raise InvalidRequestError(f"a request has at most {MOST_BYTES} bytes", where=operation)
        try:
            content = self._line.ask(operation, message, again=again, where=_where(fields, self._line.where))
            try:
                told = json.loads(split(content)[0])
                state = state_of(told["state"])
            except (KeyError, TypeError, ValueError, RecursionError):
                raise self._senseless() from None
            self._seen.take(state, seen, self._line.where)
        except (RolledBackError, AnchorError):
            self._memory.clear()
            raise
        return told, content

    def _senseless(self) -> KeystoreError:
        return ServiceError(
            "the answer makes no sense",
            where=self._line.where,
            fix="use the same version of anonymix-plugin on both machines",
        )


def _entry_told(entry: NewEnrolment) -> dict[str, Any]:
    return asdict(entry) | {"collection": str(entry.collection), "external_id": str(entry.external_id)}


def _renewal_asked(renewal: RenewalInfo) -> dict[str, Any]:
    told = renewal_told(renewal)
    return {name: value for name, value in told.items() if name not in {"changed", "name"}}


def _under(lease: Lease | None) -> dict[str, Any]:
    return {} if lease is None else {**lease.place, "holder": lease.holder}


def _seconds(grace: timedelta | None) -> float | None:
    return None if grace is None else grace.total_seconds()


def _where(fields: dict[str, Any], service: str) -> str:
    if not fields.get("scope"):
        return service
    name = f"subject {fields['subject']!r}" if "subject" in fields else "the gallery"
    return f"{name} in scope {fields['scope']!r}"


class RemoteReferences:
    """The sealed references of a store on another machine; opened there, by its second secret.

    Args:
        keys: Where they are.
    """

    def __init__(self, keys: RemoteKeystore) -> None:
        self._keys = keys

    def enabled(self, scope: str = "default") -> bool:
        """Whether a scope keeps references."""
        return bool(self._keys._ask("references-enabled", {"scope": scope}, again=True)[0]["enabled"])

    def keep(self, key: SubjectKey, data: bytes, *, fingerprint: str, subspace: str, replace: bool = True) -> bool:
        """Seal a reference for a key's version; see `References.keep`."""
        fields = _bound(key, fingerprint, subspace) | {"replace": replace}
        return bool(self._keys._ask("keep-reference", fields, bytes(data), again=True)[0]["kept"])

    def read(self, key: SubjectKey, *, fingerprint: str, subspace: str) -> bytes | None:
        """Open the reference of a key's version; see `References.read`.

        Where the key that is kept says that its scope keeps none, nobody is asked.
        """
        if not key.subject or not self._keys._keeps_references(key):
            return None
        told, content = self._keys._ask("read-reference", _bound(key, fingerprint, subspace), again=True)
        data = bytes(split(content)[1])
        content[:] = bytes(len(content))
        return data if told["found"] else None


def _bound(key: SubjectKey, fingerprint: str, subspace: str) -> dict[str, Any]:
    return {
        "subject": key.subject,
        "scope": key.scope,
        "version": key.version,
        "fingerprint": fingerprint,
        "subspace": subspace,
    }
