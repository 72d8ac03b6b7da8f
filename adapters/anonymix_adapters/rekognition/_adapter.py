"""Where the photos of a boto3 client are taken over.

Source: botocore's events `provide-client-params` (fires once a call, before validation, signing and all
retries), `before-call` (the request as it will be sent) and `after-call` (the answer); an exception in a
handler reaches the caller, and nothing is sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from anonymix_adapters._rest_gate import CloudGate
from anonymix_adapters._rest_pictures import draw, encoded, refused
from anonymix_adapters.encoding import ImageLimit
from anonymix_adapters.errors import AdapterError, BypassError
from anonymix_adapters.gate import FaceMixer, Gate, KeyUse, ScopeRule, Whose
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.wrapping import gate_of, unwrap, wrap
from anonymix_plugin.errors import UsageError
from anonymix_plugin.values import CancelableFace

__all__ = ["LIMIT", "NAME", "SDKS", "gate_of", "install", "protect", "unprotect"]

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
_STATE: Final = "anonymix"
_COLLECTION: Final = "anonymix_collection"
_S3_MAX_BYTES: Final = 15 * 1024 * 1024


@dataclass(frozen=True)
class _Sent:
    """What was put into one call."""

    digests: frozenset[bytes]
    whose: Whose
    face: CancelableFace


def protect(
    target: Any,
    mixer: FaceMixer,
    *,
    keys: KeyUse = "own",
    scope: ScopeRule = "default",
    detect: Detection = "refuse",
    s3: Any = None,
) -> Any:
    """Put the mixer in front of a Rekognition client, in place.

    Args:
        target: `boto3.client("rekognition")`.
        mixer: Makes the cancelable faces.
        keys: "own" or "gallery"; see `Gate`.
        scope: Scope of the keys, or a function of the CollectionId.
        detect: What becomes of DetectFaces: "refuse", or "protect", which describes a cancelable face.
        s3: `boto3.client("s3")`, which fetches S3Objects for the mixer. Without it they are refused.

    Returns:
        The same client.

    Raises:
        SdkMissingError, SdkVersionError: boto3 is not there, or not as tested.
        AdapterError: The client is another service's.
        DoubleProtectionError: It is protected already, in another way.
    """
    if detect not in {"refuse", "protect"}:
        raise UsageError(f"DetectFaces can't be {detect!r}", where="detect", fix="use 'refuse' or 'protect'")
    gate = CloudGate(mixer, NAME, keys=keys, scope=scope, detect=detect, s3=s3)
    return install(target, gate, detect=detect, s3=s3)


def unprotect(target: Any) -> Any:
    """Take the handlers out again; see `Adapter.unprotect`."""
    return unwrap(target)


def install(target: Any, gate: Gate, *, detect: Detection = "refuse", s3: Any = None) -> Any:
    """`protect`, with a gate that is there already."""
    SDKS[0].check()
    if getattr(getattr(target, "meta", None), "service_model", None) is None:
        raise AdapterError("this is no boto3 client", where=NAME, fix='use boto3.client("rekognition")')
    service = target.meta.service_model.service_name
    if service != "rekognition":
        raise AdapterError(f"this client is {service}'s", where=NAME, fix='use boto3.client("rekognition")')
    return wrap(target, gate, lambda client: _Hooks(client, gate, detect, s3).hook())


class _Hooks:
    """The handlers of one client."""

    def __init__(self, client: Any, gate: Gate, detect: Detection, s3: Any) -> None:
        self._client, self._gate, self._s3 = client, gate, s3
        self._mixed = dict(_MIXED) | ({"DetectFaces": ("Image",)} if detect == "protect" else {})

    def hook(self) -> Callable[[], None]:
        """Register the handlers; returns what takes them out."""
        events = self._client.meta.events
        handlers = {
            "provide-client-params.rekognition": self._mix,
            "before-call.rekognition": self._check,
            "after-call.rekognition": self._write_down,
        }
        # Ours comes first: botocore takes the parameters of the first handler that returns any.
        for name, handler in handlers.items():
            events.register_first(name, handler)

        def undo() -> None:
            for name, handler in handlers.items():
                events.unregister(name, handler)

        return undo

    def _mix(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> Any:
        """Answer `provide-client-params`: parameters with cancelable faces in place of photos."""
        context.pop(_STATE, None)
        context[_COLLECTION] = params.get("CollectionId", "")
        operation = model.name
        if operation in _WITHOUT:
            return None
        if operation not in self._mixed:
            raise refused(
                self._gate, operation, "reads pictures past the mixer, or is not known to the adapter"
            )
        return self._mixed_params(operation, dict(params), context)

    def _mixed_params(
        self, operation: str, params: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        gate, enrols = self._gate, operation == "IndexFaces"
        whose = gate.whose(
            field=params.get("ExternalImageId"), collection=params.get("CollectionId", ""), enrol=enrols
        )
        if enrols:
            _ = gate.book  # raises where there is none: asked before anything is sent
        digests = []
        for name in self._mixed[operation]:
            face, picture = draw(gate, self._photo(params.get(name), name), whose, LIMIT)
            params[name] = {"Bytes": picture}  # a new one: the caller's own must stay as it is
            digests.append(hashlib.sha256(picture).digest())
        if enrols:
            params["MaxFaces"] = 1  # there is one; a second would be one that the generator drew beside it
        context[_STATE] = _Sent(frozenset(digests), whose, face)
        return params

    def _photo(self, image: Any, name: str) -> bytes:
        given = set(image) if isinstance(image, Mapping) else set()
        if given == {"Bytes"}:
            return encoded(self._gate, image["Bytes"], f"{name}.Bytes")
        if given == {"S3Object"}:
            return self._fetched(image["S3Object"], name)
        raise UsageError(
            f"{name} is to hold either Bytes or an S3Object; nothing was sent", where=self._gate.adapter
        )

    def _fetched(self, place: Any, name: str) -> bytes:
        if self._s3 is None:
            raise refused(
                self._gate,
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

    def _check(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        """Answer `before-call`: the body, as it will be sent, holds our pictures and no others.

        Another handler of the host's could have put the photo back; botocore does not say.
        """
        if model.name in _WITHOUT:
            return
        body = json.loads(params["body"])
        sent = context.get(_STATE)
        images = [body.get(name, {}) for name in self._mixed.get(model.name, ())]
        found = {
            hashlib.sha256(base64.b64decode(image.get("Bytes", ""))).digest()
            for image in images
            if set(image) == {"Bytes"}
        }
        if sent is None or not images or found != sent.digests:
            raise BypassError(
                "the request holds a picture that is not the mixer's; it was not sent",
                where=self._gate.adapter,
                fix="look for another handler of provide-client-params or before-parameter-build",
            )

    def _write_down(
        self, http_response: Any, parsed: Any, model: Any, context: dict[str, Any], **_: Any
    ) -> None:
        """Answer `after-call`: record what was enrolled, and what was deleted."""
        if http_response.status_code >= 300:
            return
        collection = context[_COLLECTION]
        if model.name == "IndexFaces":
            self._record(parsed, context[_STATE], collection)
        elif model.name == "DeleteFaces":
            self._forget(collection, set(parsed.get("DeletedFaces", ())))
        elif model.name == "DeleteCollection":
            self._forget(collection, None)

    def _record(self, parsed: Any, sent: _Sent, collection: str) -> None:
        names = [record["Face"]["FaceId"] for record in parsed.get("FaceRecords", ())]
        try:
            for name in names:
                self._gate.record(sent.face, sent.whose, collection=collection, external_id=name)
        except Exception as error:
            self._gate.take_back(
                lambda: self._client.delete_faces(CollectionId=collection, FaceIds=names), error
            )
            raise

    def _forget(self, collection: str, names: set[str] | None) -> None:
        for entry in self._gate.entries(collection):
            if names is None or entry.external_id in names:
                self._gate.removed(entry)
