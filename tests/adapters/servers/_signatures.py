"""Request signatures, checked the way the vendors' servers check them.

Sources: "Signature Version 4 signing process" of the AWS General Reference; "Signature Algorithm v3" of
Tencent Cloud's API documentation. Both are a chain of HMAC-SHA256 over date, service and a fixed word.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from servers._service import Received, Refusal

ACCESS_KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI-not-a-real-secret"

_AWS = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)
_TENCENT = re.compile(
    r"TC3-HMAC-SHA256 Credential=([^/]+)/(\d{4}-\d\d-\d\d)/([^/]+)/tc3_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


def check_aws(received: Received, service: str, refuse: Refusal) -> None:
    """Hold a request against AWS Signature Version 4.

    Raises:
        Refusal: The given one, where the signature is not that of what arrived.
    """
    found = _AWS.fullmatch(received.headers.get("authorization", ""))
    if found is None or found[1] != ACCESS_KEY or found[4] != service:
        raise refuse
    _, date, region, _, names, signature = found.groups()
    parts = urlsplit(received.target)
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True))
    )
    path = quote(unquote(parts.path), safe="/-_.~")
    payload = received.headers.get("x-amz-content-sha256", "")
    if payload != "UNSIGNED-PAYLOAD":
        payload = hashlib.sha256(received.body).hexdigest()
    canonical = "\n".join((received.method, path, query, _headers(received, names), names, payload))
    scope = f"{date}/{region}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", received.headers["x-amz-date"], scope, _digest(canonical)))
    key = _chain(f"AWS4{SECRET}", date, region, service, "aws4_request")
    _compare(key, text, signature, refuse)


def check_tencent(received: Received, service: str, refuse: Refusal) -> None:
    """Hold a request against Tencent's TC3-HMAC-SHA256.

    Raises:
        Refusal: The given one, where the signature is not that of what arrived.
    """
    found = _TENCENT.fullmatch(received.headers.get("authorization", ""))
    if found is None or found[1] != ACCESS_KEY or found[3] != service:
        raise refuse
    _, date, _, names, signature = found.groups()
    payload = hashlib.sha256(received.body).hexdigest()
    canonical = "\n".join((received.method, "/", "", _headers(received, names), names, payload))
    scope = f"{date}/{service}/tc3_request"
    text = "\n".join(("TC3-HMAC-SHA256", received.headers["x-tc-timestamp"], scope, _digest(canonical)))
    _compare(_chain(f"TC3{SECRET}", date, service, "tc3_request"), text, signature, refuse)


def _headers(received: Received, names: str) -> str:
    return "".join(f"{name}:{' '.join(received.headers.get(name, '').split())}\n" for name in names.split(";"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _chain(secret: str, *words: str) -> bytes:
    key = secret.encode()
    for word in words:
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def _compare(key: bytes, text: str, signature: str, refuse: Refusal) -> None:
    if not hmac.compare_digest(hmac.new(key, text.encode(), "sha256").hexdigest(), signature):
        raise refuse
