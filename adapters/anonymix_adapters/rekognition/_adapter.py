"""Where the photos of a boto3 client are taken over.

All of a client's methods end in its `_make_api_call`, once a call, before validation, signing and retries:
there photos are exchanged, on the instance. Each try ends in the `send` of the session behind the client's
endpoint, after the last event (`before-send`) and whatever handlers the host has: there the body, as it is
sent, is held against the pictures that were made for the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from anonymix_adapters._rest_interceptor import CloudInterceptor, FieldRule
from anonymix_adapters._rest_pictures import draw, encoded, refused
from anonymix_adapters._wire import check_picture, check_values, current, not_ours, parsed, sending
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import AdapterError, BackEndError
from anonymix_adapters.interceptor import FaceMixer, KeyUse, ScopeRule, Whose
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import Hooks, hook, interceptor_of, unwrap, wrap
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import CancelableFace

__all__ = ["LIMIT", "NAME", "SDKS", "install", "interceptor_of", "protect", "unprotect"]

NAME: Final = "rekognition"
SDKS: Final = (Sdk("boto3", ("boto3",), "rekognition", ">=1.34,<2"),)

LIMIT: Final = ImageLimit("JPEG", max_bytes=5_242_880, min_side=80, max_side=4096, min_face=40)
"""Of the Rekognition developer guide, "Guidelines and quotas": image bytes 5 MB, sides of at least 80 px."""

Detection = Literal["refuse", "protect"]

_MIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "IndexFaces": ("Image",),
    "SearchFacesByImage": ("Image",),
    "SearchUsersByImage": ("Image",),
    "CompareFaces": ("SourceImage", "TargetImage"),
}
# Operations that carry no picture, and start nothing that would read one. Whatever is in neither list, new
# operations included, is refused.
_WITHOUT: Final = frozenset(
    [
        "AssociateFaces",
        "CreateCollection",
        "CreateUser",
        "DeleteCollection",
        "DeleteFaces",
        "DeleteStreamProcessor",
        "DeleteUser",
        "DescribeCollection",
        "DescribeStreamProcessor",
        "DisassociateFaces",
        "ListCollections",
        "ListFaces",
        "ListStreamProcessors",
        "ListTagsForResource",
        "ListUsers",
        "SearchFaces",
        "SearchUsers",
        "StopStreamProcessor",
        "TagResource",
        "UntagResource",
    ]
)
_S3_MAX_BYTES: Final = 15 * 1024 * 1024


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    s3: Any = None,
    field: FieldRule = "subject",
) -> Any:
    """Put the mixer in front of a Rekognition client, in place.

    Each method of the client takes `subject=` besides its own parameters: whose face it is. It is not sent.

    Args:
        target: `boto3.client("rekognition")`.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Interceptor`.
        scope: Scope of the keys, or a function of the CollectionId.
        detect: What becomes of DetectFaces: "refuse", or "protect", which describes a cancelable face.
        s3: `boto3.client("s3")`, which fetches S3Objects for the mixer. Without it they are refused.
        field: What ExternalImageId is; see `FieldRule`. Where it is an image's number: "label".

    Returns:
        The same client.

    Raises:
        SdkMissingError, SdkVersionError: boto3 is not there, or not as tested.
        AdapterError: The client is another service's.
        DoubleProtectionError: It is protected already, in another way.
    """
    if detect not in {"refuse", "protect"}:
        raise UsageError(f"DetectFaces can't be {detect!r}", where="detect", fix="use 'refuse' or 'protect'")
    interceptor = CloudInterceptor(mixer, NAME, keys=keys, scope=scope, field=field, detect=detect, s3=s3)
    return install(target, interceptor, detect=detect, s3=s3)


def unprotect(target: Any) -> Any:
    """Take the handlers out again; see `Adapter.unprotect`."""
    return unwrap(target)


def install(target: Any, interceptor: CloudInterceptor, *, detect: Detection = "refuse", s3: Any = None) -> Any:
    """`protect`, with an interceptor that is there already."""
    SDKS[0].check()
    if getattr(getattr(target, "meta", None), "service_model", None) is None:
        raise AdapterError("this is no boto3 client", where=NAME, fix='use boto3.client("rekognition")')
    service = target.meta.service_model.service_name
    if service != "rekognition":
        raise AdapterError(f"this client is {service}'s", where=NAME, fix='use boto3.client("rekognition")')
    if inspect.iscoroutinefunction(getattr(target, "_make_api_call", None)):
        raise AdapterError("this client is an async one", where=NAME, fix="use boto3's own")
    return wrap(target, interceptor, lambda client: _Hooks(client, interceptor, detect, s3).hook())


class _Session:
    """In the place of the session that an endpoint sends with: has each request looked at last."""

    def __init__(self, inner: Any, look: Callable[[Any], None]) -> None:
        self._inner, self._look = inner, look

    def send(self, request: Any) -> Any:
        """Look at a request as it is now, and send it."""
        self._look(request)
        return self._inner.send(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Hooks:
    """What stands in front of one client."""

    def __init__(self, client: Any, interceptor: CloudInterceptor, detect: Detection, s3: Any) -> None:
        self._client, self._interceptor, self._s3 = client, interceptor, s3
        self._mixed = dict(_MIXED) | ({"DetectFaces": ("Image",)} if detect == "protect" else {})
        self._endpoint, self._kind = client._endpoint, type(client)
        # What stands on the instance stays under ours; a method of the class is looked up at each call, so
        # that instrumentation which comes later is passed through.
        self._below = vars(client).get("_make_api_call")

    def hook(self) -> Hooks:
        """Put everything in its place."""
        events = self._client.meta.events
        handlers: dict[str, Callable[..., None]] = {
            "provide-client-params.rekognition": self._refuse_unmixed,
            "before-send.rekognition": self._look_early,
        }
        for name, handler in handlers.items():
            events.register_first(name, handler)

        def undo() -> None:
            for name, handler in handlers.items():
                events.unregister(name, handler)

        return Hooks.together(
            [
                hook(self._endpoint, {"http_session": _Session(self._endpoint.http_session, self._look)}),
                hook(self._client, {"_make_api_call": self._call, "_endpoint": self._endpoint}),
                Hooks(undo),
            ]
        )

    def _call(self, operation_name: str, api_params: Mapping[str, Any]) -> Any:
        """In the place of the client's `_make_api_call`."""
        interceptor, params = self._interceptor, dict(api_params)
        subject, collection = params.pop("subject", None), params.get("CollectionId", "")
        with sending(interceptor, subject):
            if operation_name in self._mixed:
                face, whose = self._mix(operation_name, params, collection)
            elif operation_name not in _WITHOUT:
                raise self._unknown(operation_name)
            answer = self._below_us(operation_name, params)
            if operation_name == "IndexFaces":
                made = [(record.get("Face", {}).get("FaceId"), face, whose) for record in answer.get("FaceRecords", ())]
                interceptor.keep(made, collection=collection, undo=lambda names: self._delete(collection, names))
            elif operation_name == "DeleteFaces":
                for name in answer.get("DeletedFaces", ()):
                    interceptor.forget_entry(collection, name)
            elif operation_name == "DeleteCollection" and answer.get("StatusCode", 200) < 300:
                interceptor.gone(collection)
        return answer

    def _below_us(self, operation: str, params: dict[str, Any]) -> Any:
        if self._below is not None:
            return self._below(operation, params)
        return self._kind._make_api_call(self._client, operation, params)

    def _delete(self, collection: str, names: list[str]) -> None:
        answer = self._client.delete_faces(CollectionId=collection, FaceIds=names)
        if not set(names) <= set(answer.get("DeletedFaces", ())):
            raise BackEndError("the deletion was not confirmed", where=NAME)

    def _mix(self, operation: str, params: dict[str, Any], collection: str) -> tuple[CancelableFace, Whose]:
        """Put cancelable faces in the place of photos; the last of them, and whose it is."""
        interceptor, enrols = self._interceptor, operation == "IndexFaces"
        whose = interceptor.whose_call(params.get("ExternalImageId"), collection=collection, enrol=enrols)
        if enrols:
            _ = interceptor.registry  # raises where there is none: asked before anything is sent
            params["MaxFaces"] = 1  # there is one; a second would be one that the generator drew beside it
        for name in self._mixed[operation]:
            face, picture = draw(interceptor, self._photo(params.get(name), name), whose, LIMIT)
            params[name] = {"Bytes": picture}  # a new one: the caller's own must stay as it is
        return face, whose

    def _unknown(self, operation: str) -> Exception:
        return refused(self._interceptor, operation, "reads pictures past the mixer, or is not known to the adapter")

    def _refuse_unmixed(self, model: Any, **_: Any) -> None:
        """Answer `provide-client-params`: signed addresses and calls past `_make_api_call` mix nothing."""
        if model.name not in _WITHOUT and current(self._interceptor) is None:
            raise self._unknown(model.name)

    def _look_early(self, request: Any, **_: Any) -> None:
        """Answer `before-send`: a handler of the host's may send the request in botocore's place."""
        self._look(request)

    def _look(self, request: Any) -> None:
        """Hold a request, as it is sent, against the pictures that were made for the call."""
        target = request.headers.get("X-Amz-Target", "")
        operation = (target.decode() if isinstance(target, bytes) else target).rpartition(".")[2]
        if operation not in _WITHOUT and operation not in self._mixed:
            raise self._unknown(operation)
        content = parsed(self._interceptor, request.body)
        for name in self._mixed.get(operation, ()):
            image = content.pop(name, None)
            if not isinstance(image, dict) or set(image) != {"Bytes"}:
                raise not_ours(self._interceptor)
            check_picture(self._interceptor, image["Bytes"])
        check_values(self._interceptor, content)

    def _photo(self, image: Any, name: str) -> bytes:
        given = set(image) if isinstance(image, Mapping) else set()
        if given == {"Bytes"}:
            return encoded(self._interceptor, image["Bytes"], f"{name}.Bytes")
        if given == {"S3Object"}:
            return self._fetched(image["S3Object"], name)
        raise UsageError(
            f"{name} is to hold either Bytes or an S3Object; nothing was sent", where=self._interceptor.adapter
        )

    def _fetched(self, place: Any, name: str) -> bytes:
        if self._s3 is None:
            raise refused(
                self._interceptor,
                f"{name}.S3Object",
                "would be read by Rekognition itself, past the mixer",
                "send Bytes, or protect with s3=boto3.client('s3')",
            )
        version = {"VersionId": place["Version"]} if "Version" in place else {}
        found = self._s3.get_object(Bucket=place["Bucket"], Key=place["Name"], **version)
        with found["Body"] as body:
            data: bytes = body.read(_S3_MAX_BYTES + 1)
        if len(data) > _S3_MAX_BYTES:
            raise UsageError(f"the S3 object has more than {_S3_MAX_BYTES} bytes", where=NAME)
        return data
