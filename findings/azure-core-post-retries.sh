#!/bin/sh
# azure-core 1.41.0 repeats a POST after 500, 503 and 504, but not after 429, 502 or 408 unless the answer has Retry-After.
# `RetryPolicy` repeats every status of its list for GET. For POST, which detection and identification of faces are, it
# repeats 500, 503 and 504, and any other status only where the answer carries Retry-After. A service that is busy (429)
# without that header fails at the first try.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check azure-core==1.41.0
env/bin/python - <<'END'
from importlib.metadata import version

from azure.core.pipeline import Pipeline
from azure.core.pipeline.policies import RetryPolicy
from azure.core.pipeline.transport import HttpRequest, HttpResponse, HttpTransport


class Answer(HttpResponse):
    def __init__(self, request, status, headers):
        super().__init__(request, None)
        self.status_code, self.headers, self.reason, self.content_type = status, headers, "", "text/plain"

    def body(self):
        return b""


class Local(HttpTransport):
    """Answers always alike, and counts."""

    def __init__(self, status, headers):
        self.status, self.headers, self.requests = status, headers, 0

    def send(self, request, **_):
        self.requests += 1
        return Answer(request, self.status, self.headers)

    def open(self): ...
    def close(self): ...
    def sleep(self, _): ...
    def __exit__(self, *_): ...


def requests(method, status, headers):
    transport = Local(status, headers)
    Pipeline(transport, [RetryPolicy()]).run(HttpRequest(method, "https://localhost/"))
    return transport.requests


print("azure-core", version("azure-core"))
seen = {}
for status in (408, 429, 500, 502, 503, 504):
    seen[status] = tuple(
        requests(method, status, headers)
        for method, headers in (("GET", {}), ("POST", {}), ("POST", {"Retry-After": "0"}))
    )
    print(f"{status}: requests sent for GET, POST, POST with Retry-After: {seen[status]}")
assert seen == {
    408: (4, 1, 4), 429: (4, 1, 4), 500: (4, 4, 4), 502: (4, 1, 4), 503: (4, 4, 4), 504: (4, 4, 4),
}, "changed: another number of requests"
END
