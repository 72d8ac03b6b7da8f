"""After a rotation: delete the old entries, enrol the people again."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from anonymix_adapters.errors import AdapterError, in_words
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_keystore import EnrolmentInfo, Keystore
from anonymix_plugin.images import ChannelOrder, PhotoSource, decode_photo

LABEL = "adapter"


@dataclass(frozen=True)
class Renewal:
    """What a renewal did.

    Attributes:
        deleted: Entries deleted, by their id in the back end.
        enrolled: Subjects enrolled again.
        failures: (subject, entry's id, what went wrong); a repeated renewal takes them up again.
    """

    deleted: tuple[str, ...]
    enrolled: tuple[str, ...]
    failures: tuple[tuple[str, str, str], ...] = field(default=())


def renew(
    interceptor: Interceptor,
    *,
    delete: Callable[[EnrolmentInfo], object],
    enrol: Callable[[EnrolmentInfo, PhotoSource], object] | None = None,
    photo: Callable[[EnrolmentInfo], PhotoSource | None] | None = None,
    collection: str | None = None,
) -> Renewal:
    """Delete outdated entries from the back end, then enrol their subjects again.

    It works from the keystore's records, so that it can be interrupted and repeated. One failure does not
    stop the rest.

    Args:
        interceptor: Whose entries.
        delete: Deletes an entry from the back end; one that is gone must be no error.
        enrol: Enrols a subject from a photo through the protected client, and has it recorded. None
            only deletes.
        photo: A photo of the subject: a new one, or `sealed_original`. None, or a function that returns
            None, leaves the subject to be enrolled later.
        collection: This collection alone.
    """
    deleted, enrolled, failures = [], [], []
    waiting: dict[tuple[str, str], EnrolmentInfo] = {}
    for item in interceptor.due(collection):
        if item.enrol:
            waiting.setdefault((item.subject, item.collection), item)
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
            picture = photo(item)
            if picture is not None:
                enrol(item, picture)
                enrolled.append(item.subject)
        except Exception as error:  # noqa: BLE001 - as above
            failures.append((item.subject, item.external_id, in_words(error)))
    return Renewal(tuple(deleted), tuple(enrolled), tuple(failures))


def keep_original(
    interceptor: Interceptor, photo: PhotoSource, whose: Whose, *, channel_order: ChannelOrder = "rgb"
) -> None:
    """Seal the photo of an enrolment in the keystore, so that a rotation needs no new one.

    Off unless it is called, and unless the store's originals were enabled and unlocked: whoever gets both
    secrets has the faces themselves.

    Raises:
        AdapterError: The source of keys keeps no originals, or nobody is named.
        OriginalsError: They are switched off or locked.
    """
    if whose.subject is None:
        raise AdapterError("an original needs a subject", where=interceptor.adapter, fix="name it")
    stream = io.BytesIO()
    pixels = decode_photo(photo, channel_order=channel_order).pixels
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    _store(interceptor).originals.keep(whose.subject, stream.getvalue(), scope=whose.scope, label=LABEL)


def sealed_original(interceptor: Interceptor) -> Callable[[EnrolmentInfo], PhotoSource | None]:
    """For `renew`: the sealed original of each subject, None where none is kept."""
    originals = _store(interceptor).originals

    def photo(item: EnrolmentInfo) -> PhotoSource | None:
        if LABEL not in originals.labels(item.subject, scope=item.scope):
            return None
        return originals.read(item.subject, scope=item.scope, label=LABEL)

    return photo


def _store(interceptor: Interceptor) -> Keystore:
    store = interceptor.mixer.keystore
    if not isinstance(store, Keystore):
        raise AdapterError("this source of keys keeps no originals", where=interceptor.adapter)
    return store
