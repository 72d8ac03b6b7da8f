"""The records of an API that has no adapter: what its profile says is enough to keep them."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Final
from urllib.parse import quote

from pydantic import model_validator

from anonymix_adapters._rest import Call, Reply, Send
from anonymix_adapters._rest_front import Front
from anonymix_adapters._rest_interceptor import CloudInterceptor
from anonymix_adapters._rest_pictures import Fetch
from anonymix_adapters.errors import BackEndError
from anonymix_adapters.gateway.profile import Profile, Route

_FRONTS: Final = {"compreface": "CompreFaceFront", "facepp": "FacePlusPlusFront", "luxand": "LuxandFront"}


class AnyReply(Reply):
    """An answer of any shape."""

    content: Any = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_is(cls, value: Any) -> Any:
        return {"content": value}


def front_of(profile: Profile, interceptor: CloudInterceptor, collection: str, fetch: Fetch | None) -> Front:
    """What keeps the records of a profile: the front of its adapter, or one by the profile itself."""
    if not profile.front:
        return ProfileFront(profile, interceptor, collection, fetch)
    kind: type[Front] = getattr(import_module(f"anonymix_adapters.{profile.front}"), _FRONTS[profile.front])
    return kind.behind(interceptor, collection=collection, fetch=fetch)


def at(content: Any, path: str) -> Any:
    """The value at a path of a JSON value: "result.0.id"; None where there is none."""
    for step in filter(None, path.split(".")):
        if isinstance(content, list) and step.isdecimal() and int(step) < len(content):
            content = content[int(step)]
        elif isinstance(content, dict):
            content = content.get(step)
        else:
            return None
    return content


class ProfileFront(Front):
    """Protects calls by their purpose, and records what a profile says of entries.

    Args:
        profile: The profile.
        interceptor: See `Front`.
        collection: Where the API names none.
        fetch: See `Front`.
    """

    def __init__(
        self, profile: Profile, interceptor: CloudInterceptor, collection: str, fetch: Fetch | None = None
    ) -> None:
        super().__init__(interceptor, fetch)
        self.limit = profile.limits.image_limit()
        self._routes = {route.call: route for route in profile.routes}
        self._collection = collection

    def __call__(self, call: Call[Any], send: Send) -> Any:
        """See `Front`."""
        from anonymix_adapters._wire import sending

        route = self._routes[call.name]
        collection = call.about.get("(collection)", self._collection)
        with sending(self.interceptor, call.subject):
            if route.purpose == "enrol":
                return self._enrolled(route, call, send, collection)
            if call.pictures:
                return send(self.mixed(call, self.interceptor.whose_call(collection=collection))[0])
            answer = send(call)
            if route.purpose == "delete" and route.entry:
                self._deleted(filled(route.entry, call), collection)
            return answer

    def _enrolled(self, route: Route, call: Call[Any], send: Send, collection: str) -> Any:
        whose = self.interceptor.whose_call(call.about.get("(subject)"), collection=collection, enrol=True)
        _ = self.interceptor.registry
        mixed, faces = self.mixed(call, whose)
        answer: AnyReply = send(mixed)
        found = at(answer.content, route.answer_entry)
        made = str(found) if isinstance(found, str | int) and found != "" else ""
        name = filled(route.entry, call, answer=made) if made else ""

        def undo(_: list[str]) -> None:
            if not route.undo:
                raise BackEndError("the profile says no way to delete an entry", where=self.interceptor.adapter)
            send(Call("undo", AnyReply, "DELETE", filled(route.undo.split()[1], call, answer=made, quoted=True)))

        self.interceptor.keep([(name, next(iter(faces.values())), whose)], collection=collection, undo=undo)
        return answer

    def _deleted(self, entry: str, collection: str) -> None:
        self.interceptor.gone(collection, lambda name: name == entry or name.startswith(f"{entry}/"))


def filled(template: str, call: Call[Any], *, answer: str = "", quoted: bool = False) -> str:
    """A template with what the call says in the place of its names."""
    known = {**call.fields, **call.query, **call.about, "answer": answer}

    def value(found: re.Match[str]) -> str:
        text = known.get(found[1], "")
        return quote(text, safe="") if quoted else text

    return re.sub(r"\{(\w+)\}", value, template)
