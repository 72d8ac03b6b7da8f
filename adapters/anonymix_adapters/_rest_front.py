"""The mixer in front of one of our typed REST clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar

from anonymix_adapters._rest import Call, Reply, RestClient, Send
from anonymix_adapters._rest_interceptor import CloudInterceptor
from anonymix_adapters._rest_pictures import Fetch, Url, draw, fetched, refused, upload
from anonymix_adapters._wire import sending
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.interceptor import Whose
from anonymix_adapters.wrapping import wrap
from anonymix_plugin.values import CancelableFace

C = TypeVar("C", bound=RestClient)


class Front:
    """Takes over the calls of a client; a subclass has a method `_on_NAME` for each call that needs one.

    Calls that carry no picture and have no such method are passed on if `passes` names them; all others are
    refused.

    Args:
        interceptor: What stands in front of the client.
        fetch: Fetches photos by address; None refuses addresses.
    """

    passes: ClassVar[frozenset[str]] = frozenset()
    replies: ClassVar[Mapping[str, type[Reply]]] = {}
    """What answers are read as, by call, where no client says so."""
    limit: ImageLimit = ImageLimit()

    def __init__(self, interceptor: CloudInterceptor, fetch: Fetch | None = None) -> None:
        self.interceptor, self._fetch = interceptor, fetch

    @classmethod
    def behind(cls, interceptor: CloudInterceptor, *, collection: str, fetch: Fetch | None = None) -> Self:
        """What stands in a server in front of the API; `collection` counts where the API names none."""
        del collection
        return cls(interceptor, fetch)

    def __call__(self, call: Call[Any], send: Send) -> Any:
        """Make a call through the mixer."""
        handler: Callable[[Call[Any], Send], Any] | None = getattr(self, f"_on_{call.name}", None)
        if handler is None and (call.name not in self.passes or call.pictures):
            raise refused(self.interceptor, call.name, "is not known to the adapter")
        with sending(self.interceptor, call.subject):
            return (handler or _sent)(call, send)

    def mixed(self, call: Call[Any], whose: Whose) -> tuple[Call[Any], dict[str, CancelableFace]]:
        """A call with a cancelable face in place of each photo, and those faces by field."""
        faces: dict[str, CancelableFace] = {}
        pictures: dict[str, Any] = {}
        for name, photo in call.pictures.items():
            kept = self.passed(photo)
            if kept is not None:
                pictures[name] = kept
            else:
                faces[name], pictures[name] = draw(self.interceptor, self.photo(photo), whose, self.limit)
        return replace(call, pictures=pictures), faces

    def photo(self, given: Any) -> Any:
        """The photo that a call was given, fetched where it is an address."""
        if isinstance(given, Url):
            return fetched(self.interceptor, given.address, self._fetch)
        return upload(self.interceptor, given)

    def passed(self, _: Any) -> Any | None:
        """What is sent as it is, because it names a cancelable face already; None for photos."""
        return None


def _sent(call: Call[Any], send: Send) -> Any:
    return send(call)


def put_in_front(client: C, kind: type[C], front: Front) -> C:
    """Protect one of our clients, in place.

    Raises:
        SdkMissingError, SdkVersionError: httpx2 is not there, or not as tested.
        AdapterError: It is no client of that kind.
        DoubleProtectionError: It is protected already, in another way.
    """
    kind.SDK.check()
    if not isinstance(client, kind):
        raise AdapterError(
            f"this is no {kind.__name__} client", where=front.interceptor.adapter, fix=f"use {kind.__name__}(...)"
        )

    return wrap(client, front.interceptor, lambda target: target.put_around(front))
