"""After a rotation: delete the old entries, enrol the people again."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image

from anonymix_adapters.errors import AdapterError, in_words
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_keystore import DamagedError, EnrolmentInfo, Keystore, Originals
from anonymix_plugin.claims import Claim, claimed
from anonymix_plugin.images import ChannelOrder, PhotoSource, decode_photo

LABEL = "adapter"

Photos: TypeAlias = PhotoSource | list[PhotoSource]
"""A photo of a subject, or a list of several."""


@dataclass(frozen=True)
class Renewal:
    """What a renewal did.

    Attributes:
        deleted: Entries deleted, by their id in the back end.
        enrolled: Subjects enrolled again.
        failures: (subject, entry's id, what went wrong); a repeated renewal takes them up again. Without subject and
            id it is what the store says of records that it can't read.
    """

    deleted: tuple[str, ...]
    enrolled: tuple[str, ...]
    failures: tuple[tuple[str, str, str], ...] = field(default=())


def renew(
    interceptor: Interceptor,
    *,
    delete: Callable[[EnrolmentInfo], object],
    enrol: Callable[[EnrolmentInfo, PhotoSource], object] | None = None,
    photo: Callable[[EnrolmentInfo], Photos | None] | None = None,
    collection: str | None = None,
) -> Renewal:
    """Delete outdated entries from the back end, then enrol their subjects again.

    It works from the keystore's records, so that it can be interrupted and repeated. One failure does not
    stop the rest.

    Args:
        interceptor: Whose entries.
        delete: Deletes an entry from the back end; one that is gone must be no error.
        enrol: Enrols a subject from a photo through the protected client, and has it recorded. It is called in a
            block that claims the record's subject and scope. None only deletes.
        photo: A photo of the subject, or a list of several: new ones, or `sealed_original`. None, or a
            function that returns None, leaves the subject to be enrolled later. Of several, `enrol` is given
            the first, and the entry is drawn from all (`Interceptor.together`). Where the scope keeps references,
            the new key version gets its own.
        collection: This collection alone.
    """
    deleted, enrolled, failures = [], [], []
    waiting: dict[tuple[str, str, str], EnrolmentInfo] = {}
    work: list[EnrolmentInfo] = []
    try:
        work.extend(interceptor.each_due(collection))
    except DamagedError as error:  # of some; the others are renewed all the same
        failures.append(("", "", in_words(error)))
    for item in work:
        if item.enrol:
            waiting.setdefault((item.subject, item.scope, item.collection), item)
        if not item.delete:
            continue
        try:
            delete(item)
            interceptor.removed(item)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises: it is reported, the rest goes on
            failures.append((item.subject, item.external_id, in_words(error)))
        else:
            deleted.append(item.external_id)
    for item in waiting.values():
        if enrol is None or photo is None:
            break
        try:
            pictures = _several(photo(item))
            if pictures:
                several = interceptor.together(item.subject, pictures, collection=item.collection)
                # Equal names in two scopes are two people: the record says whose key it is.
                with claimed(Claim(item.subject, item.scope)), several if len(pictures) > 1 else nullcontext():
                    enrol(item, pictures[0])
                enrolled.append(item.subject)
        except Exception as error:  # noqa: BLE001 - as above
            failures.append((item.subject, item.external_id, in_words(error)))
    return Renewal(tuple(deleted), tuple(enrolled), tuple(failures))


def keep_original(
    interceptor: Interceptor,
    photo: Photos,
    whose: Whose,
    *,
    channel_order: ChannelOrder = "rgb",
) -> None:
    """Seal the photo of an enrolment, or several, in the keystore, so that a rotation needs no new one.

    Those that were kept before are erased.

    Off unless it is called, and unless the store's originals were enabled and unlocked: whoever gets both
    secrets has the faces themselves.

    Raises:
        AdapterError: The source of keys keeps no originals, or nobody is named.
        OriginalsError: They are switched off or locked.
    """
    if whose.subject is None:
        raise AdapterError("an original needs a subject", where=interceptor.adapter, fix="name it")
    photos = _several(photo)
    originals, subject, scope = _store(interceptor).originals, whose.subject, whose.scope
    before = set(_labels(originals, subject, scope))
    labels = [LABEL if number == 0 else f"{LABEL} {number + 1}" for number in range(len(photos))]
    for label, one in zip(labels, photos, strict=True):
        stream = io.BytesIO()
        pixels = decode_photo(one, channel_order=channel_order).pixels
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        originals.keep(subject, stream.getvalue(), scope=scope, label=label)
    for label in before - set(labels):
        originals.drop(subject, scope=scope, label=label)


def sealed_original(interceptor: Interceptor) -> Callable[[EnrolmentInfo], Photos | None]:
    """For `renew`: the sealed original of each subject, or a list of several, None where none is kept."""
    originals = _store(interceptor).originals

    def photo(item: EnrolmentInfo) -> Photos | None:
        labels = _labels(originals, item.subject, item.scope)
        found: list[PhotoSource] = [originals.read(item.subject, scope=item.scope, label=label) for label in labels]
        return found if len(found) > 1 else next(iter(found), None)

    return photo


def _several(photo: Photos | None) -> list[PhotoSource]:
    if photo is None:
        return []
    return photo if isinstance(photo, list) else [photo]


def _labels(originals: Originals, subject: str, scope: str) -> list[str]:
    """The labels of the originals that this module kept, in the order of the photos."""
    found = [label for label in originals.labels(subject, scope=scope) if label.split(" ")[0] == LABEL]
    return sorted(found, key=lambda label: int(label.removeprefix(LABEL) or 1))


def _store(interceptor: Interceptor) -> Keystore:
    store = interceptor.mixer.keystore
    if not isinstance(store, Keystore):
        raise AdapterError("this source of keys keeps no originals", where=interceptor.adapter)
    return store
