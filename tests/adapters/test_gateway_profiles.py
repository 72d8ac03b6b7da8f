"""Every profile is held to this: whatever a request holds, no photo reaches the upstream."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from recording_upstream import ID, QuickMixer, Recording, is_problem, request_for

from anonymix_adapters import compreface, facepp, luxand
from anonymix_adapters.gateway import PROFILES, Proxy, Received, Rights, load_profile, problem
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_plugin import read_marker
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.images import encode_cancelable

LOADED = {name: load_profile(name) for name in PROFILES}
PICTURES = [
    (name, route.call, body)
    for name, profile in LOADED.items()
    for route in profile.routes
    if route.pictures
    for body in route.bodies
]
ROUTES = [(name, route.call) for name, profile in LOADED.items() for route in profile.routes]


@pytest.fixture(scope="module")
def photo() -> bytes:
    path = Path(__file__).parents[1] / "people" / "alex_1.jpg"
    return path.read_bytes()


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keystore.db", PassphraseUnlock("swordfish", cost=cheap)) as made:
        yield made


Pair = tuple[Proxy, Recording]


@pytest.fixture
def proxy(keystore: Keystore) -> Iterator[Callable[..., Pair]]:
    made: list[Proxy] = []

    def make(name: str, **how: Any) -> Pair:
        upstream = Recording(LOADED[name])
        made.append(Proxy(LOADED[name], "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream, **how))
        return made[-1], upstream

    yield make
    for each in made:
        each.close()


def refusal(proxy: Proxy, request: Received, rights: Rights | None = None) -> dict[str, Any]:
    """The problem document of a request that must be refused."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each becomes a document
        proxy.answer(request, rights or Rights(name=True))
    document = problem(caught.value)
    assert is_problem(document)
    assert document["code"] != "internal", caught.value
    return document


def no_original(upstream: Recording, photo: bytes) -> None:
    sent = upstream.bodies()
    pieces = [photo[at : at + 48] for at in range(1024, len(photo) - 48, 997)]
    for piece in pieces:
        assert piece not in sent
        assert base64.b64encode(piece)[:40] not in sent
    assert not any(sent.count(base64.b64encode(photo[at : at + 300])[8:-8]) for at in range(600, 1200))


def pictures_in(request: httpx2.Request) -> list[bytes]:
    """The pictures of a request that went up, found without the gateway's own reader."""
    found = [b"\xff\xd8\xff" + part for part in request.content.split(b"\xff\xd8\xff")[1:]]
    texts: list[Any] = []
    if "json" in request.headers.get("content-type", ""):
        texts = list(json.loads(request.content).values())
    elif "urlencoded" in request.headers.get("content-type", ""):
        texts = list(httpx2.QueryParams(request.content.decode()).values())
    decoded = [base64.b64decode(t.partition(",")[2] or t) for t in texts if isinstance(t, str) and len(t) > 1000]
    return [*found, *decoded]


@pytest.mark.parametrize(("name", "call", "body"), PICTURES)
def test_every_picture_that_goes_up_is_a_cancelable_face(
    name: str, call: str, body: str, proxy: Callable[..., Pair], photo: bytes, keystore: Keystore
) -> None:
    made, upstream = proxy(name)
    subject = "alice" if call == "add_face" and name == "luxand" else ""
    answer = made.answer(request_for(LOADED[name], call, body, photo, subject), Rights(name=True))
    assert answer.status == 200
    sent = [picture for request in upstream.received for picture in pictures_in(request)]
    route = next(each for each in LOADED[name].routes if each.call == call)
    assert len(sent) == len(route.pictures)
    assert all(read_marker(picture) is not None for picture in sent)
    no_original(upstream, photo)


@pytest.mark.parametrize(("name", "call"), ROUTES)
def test_unknown_fields_of_every_route_are_refused(
    name: str, call: str, proxy: Callable[..., Pair], photo: bytes
) -> None:
    made, upstream = proxy(name)
    profile = LOADED[name]
    route = next(each for each in profile.routes if each.call == call)
    requests = [request_for(profile, call, photo=photo, query={"extra": "1"})]
    for body in route.bodies:
        if body == "multipart":
            requests += [
                request_for(profile, call, body, photo, fields={"extra": "1"}),
                request_for(profile, call, body, photo, files={"extra": ("b.jpg", photo, "image/jpeg")}),
            ]
        elif body in {"json", "form"}:
            requests.append(request_for(profile, call, body, photo, fields={"extra": "1"}))
    for request in requests:
        document = refusal(made, request)
        assert (document["status"], document["code"]) == (403, "unknown_field")
    assert upstream.received == []


def hidden(photo: bytes) -> dict[str, str]:
    """A small photo, written as texts."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(photo)).resize((20, 20)).save(stream, "WEBP", quality=1)
    small = stream.getvalue()
    text = base64.b64encode(small).decode()
    assert len(text) < 512
    return {
        "base64": text,
        "without padding": text.rstrip("=")[:-1],
        "for URLs": base64.urlsafe_b64encode(small).decode(),
        "data URL": f"data:image/webp;base64,{text}",
        "hex": small.hex()[:500],
        "lines": "\n".join(text[at : at + 60] for at in range(0, len(text), 60)),
        "too long": "x" * 5000,
    }


@pytest.mark.parametrize(("name", "call"), ROUTES)
def test_pictures_hidden_in_texts_are_refused(name: str, call: str, proxy: Callable[..., Pair], photo: bytes) -> None:
    made, upstream = proxy(name)
    route = next(each for each in LOADED[name].routes if each.call == call)
    tried = 0
    for text in hidden(photo).values():
        for field, kind in route.query.items():
            if kind in {"name", "text", "id"}:
                refusal(made, request_for(LOADED[name], call, photo=photo, query={field: text}))
                tried += 1
        for field, kind in route.fields.items():
            if kind in {"name", "text", "id", "ids"}:
                refusal(made, request_for(LOADED[name], call, photo=photo, fields={field: text}))
                tried += 1
        if "multipart" in route.bodies or "form" in route.bodies:
            for field in LOADED[name].credentials.fields:
                refusal(made, request_for(LOADED[name], call, photo=photo, fields={field: text}))
                tried += 1
        for field in LOADED[name].credentials.headers:
            refusal(made, request_for(LOADED[name], call, photo=photo, headers={field: text}))
            tried += 1
    assert tried or name == "deepface-api"
    assert upstream.received == []


BAD_BODIES: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "a photo and no form": lambda photo: {"raw": photo},
    "nothing": lambda _: {"raw": b""},
    "half a form": lambda photo: {"raw": b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\n" + photo},
    "JSON under a form's name": lambda _: {"raw": b'{"file": 1}'},
    "a photo as its own type": lambda photo: {"raw": photo, "headers": {"content-type": "image/jpeg"}},
    "text": lambda photo: {"raw": photo, "headers": {"content-type": "text/plain"}},
    "compressed": lambda _: {"headers": {"content-encoding": "gzip"}},
    "UTF-16": lambda _: {"headers": {"content-type": "application/json; charset=utf-16"}},
    "deep JSON": lambda _: {"raw": b"[" * 100_000, "headers": {"content-type": "application/json"}},
    "a long number": lambda _: {
        "raw": b'{"a": ' + b"9" * 100_000 + b"}",
        "headers": {"content-type": "application/json"},
    },
    "a field twice": lambda _: {"raw": b'{"a": 1, "a": 2}', "headers": {"content-type": "application/json"}},
    "a query twice": lambda _: {"raw_query": "subject=a&subject=b"},
    "a query that is none": lambda _: {"raw_query": "%ff%fe=1"},
    "thousand parts": lambda _: {
        "files": {f"f{number}": ("a.jpg", b"x", "image/jpeg") for number in range(1000)},
    },
}


@pytest.mark.parametrize("bad", BAD_BODIES)
@pytest.mark.parametrize("name", PROFILES)
def test_malformed_requests_reach_no_upstream(name: str, bad: str, proxy: Callable[..., Pair], photo: bytes) -> None:
    made, upstream = proxy(name)
    for route in LOADED[name].routes:
        if route.pictures:
            changes = BAD_BODIES[bad](photo)
            document = refusal(made, request_for(LOADED[name], route.call, photo=photo, **changes))
            assert document["status"] in {400, 403, 413, 415, 422}
    assert upstream.received == []


@pytest.mark.parametrize(("name", "call", "body"), PICTURES)
@pytest.mark.parametrize("value", ["https://photos.example/a.jpg", "/etc/passwd", "", 3, None, ["x"]])
def test_what_is_no_picture_is_not_sent_in_its_place(
    name: str, call: str, body: str, value: object, proxy: Callable[..., Pair], photo: bytes
) -> None:
    made, upstream = proxy(name)
    route = next(each for each in LOADED[name].routes if each.call == call)
    places = next(iter(route.pictures.values()))
    if body == "multipart":
        junk = value if isinstance(value, str) else "3"
        request = request_for(LOADED[name], call, body, photo, files={places.file: ("a.jpg", junk.encode(), "x/y")})
    elif body == "json":
        request = request_for(LOADED[name], call, body, photo)
        content = json.loads(request.body) | {places.base64: value}
        request = request_for(LOADED[name], call, body, photo, raw=json.dumps(content).encode())
    else:
        request = request_for(LOADED[name], call, body, photo)
        given = dict(httpx2.QueryParams(request.body.decode())) | {places.base64: str(value)}
        request = request_for(LOADED[name], call, body, photo, raw=str(httpx2.QueryParams(given)).encode())
    refusal(made, request)
    assert upstream.received == []


@pytest.mark.parametrize("name", PROFILES)
def test_unknown_routes_are_refused(name: str, proxy: Callable[..., Pair], photo: bytes) -> None:
    made, upstream = proxy(name)
    profile = LOADED[name]
    known = request_for(profile, profile.routes[0].call, photo=photo)
    for path in ("/", "//", profile.base + "../admin", f"{profile.base}%2e%2e/x", f"{known.path}/more", "/api/v2/x"):
        document = refusal(made, Received("POST", path, "", known.headers, known.body))
        assert document["status"] == 403
    assert refusal(made, Received("TRACE", known.path, "", known.headers, b""))["code"] == "unknown_route"
    assert upstream.received == []


def answering(proxy: Callable[..., Pair], name: str, photo: bytes, *answers: Any) -> tuple[Proxy, Received, Recording]:
    made, upstream = proxy(name)
    upstream.next = list(answers)
    return made, request_for(LOADED[name], first_probe(name), photo=photo), upstream


def first_probe(name: str) -> str:
    return next(each.call for each in LOADED[name].routes if each.purpose in {"probe", "search"} and not each.entry)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (lambda _: httpx2.Response(302, headers={"location": "http://elsewhere.example/"}), "back_end_redirect", 502),
        (lambda _: httpx2.ConnectError("refused"), "back_end", 502),
        (lambda _: httpx2.ReadTimeout("slow"), "back_end_timeout", 504),
        (lambda _: httpx2.RemoteProtocolError("garbage"), "back_end", 502),
        (lambda _: httpx2.Response(200, content=b"<html>garbage"), "back_end", 502),
        (lambda photo: httpx2.Response(200, content=photo), "original_in_answer", 502),
        (
            lambda photo: httpx2.Response(200, json={"x": [base64.b64encode(photo).decode()]}),
            "original_in_answer",
            502,
        ),
    ],
)
def test_trouble_at_the_back_end_is_a_problem_document(
    name: str, answer: Any, code: str, status: int, proxy: Callable[..., Pair], photo: bytes
) -> None:
    made, request, upstream = answering(proxy, name, photo, answer(photo))
    document = refusal(made, request)
    assert document["status"] == status
    assert document["code"] in {code, "back_end"}
    assert len(upstream.received) == 1
    no_original(upstream, photo)


@pytest.mark.parametrize("name", PROFILES)
def test_refusals_of_the_back_end_pass_back(name: str, proxy: Callable[..., Pair], photo: bytes) -> None:
    words = {"message": "slow down"}
    made, request, _ = answering(proxy, name, photo, httpx2.Response(429, json=words, headers={"retry-after": "7"}))
    answer = made.answer(request, Rights())
    assert (answer.status, json.loads(answer.body), answer.headers) == (429, words, {"retry-after": "7"})


def test_a_cancelable_face_passes_back_as_a_picture_and_nothing_else(
    proxy: Callable[..., Pair], photo: bytes, keystore: Keystore
) -> None:
    made, upstream = proxy("compreface")
    face = encode_cancelable(QuickMixer(keystore).protect(photo), "JPEG")
    upstream.next = [httpx2.Response(200, content=face, headers={"content-type": "text/html"})]
    answer = made.answer(request_for(LOADED["compreface"], "picture"), Rights())
    assert (answer.media_type, answer.body) == ("application/octet-stream", face)


def test_boxes_are_put_back_and_traits_left_out(proxy: Callable[..., Pair], photo: bytes) -> None:
    made, _ = proxy("compreface")
    content = json.loads(made.answer(request_for(LOADED["compreface"], "recognize", photo=photo), Rights()).body)
    box = {"x_min": 10, "y_min": 20, "x_max": 110, "y_max": 140}
    assert content == {"result": [{"box": box, "subjects": []}]}
    made, _ = proxy("facepp")
    content = json.loads(made.answer(request_for(LOADED["facepp"], "detect", photo=photo), Rights()).body)
    assert content["faces"][0]["face_rectangle"] == {"left": 10, "top": 20, "width": 100, "height": 120}


def test_a_subject_is_believed_only_from_who_may_name_it(
    proxy: Callable[..., Pair], photo: bytes, keystore: Keystore
) -> None:
    made, upstream = proxy("compreface", keys="own")
    keystore.issue("alice")
    request = request_for(LOADED["compreface"], "recognize", photo=photo, subject="alice")
    assert refusal(made, request, Rights(name=False))["status"] == 403
    assert refusal(made, request_for(LOADED["compreface"], "recognize", photo=photo))["code"] == "subject_needed"
    assert upstream.received == []
    assert made.answer(request, Rights(name=True)).status == 200
    enrol = request_for(LOADED["compreface"], "add_face", photo=photo)
    assert refusal(made, enrol, Rights(enrol=False))["status"] == 403


def test_an_example_is_verified_with_the_key_it_was_enrolled_with(
    proxy: Callable[..., Pair], photo: bytes, keystore: Keystore
) -> None:
    made, upstream = proxy("compreface", keys="own")
    made.answer(request_for(LOADED["compreface"], "add_face", photo=photo), Rights())
    assert [item.external_id for item in keystore.enrolments()] == [ID]
    assert made.answer(request_for(LOADED["compreface"], "verify_face", photo=photo), Rights()).status == 200
    assert len(upstream.received) == 2


def test_an_entry_that_cannot_be_recorded_is_taken_back(
    proxy: Callable[..., Pair], photo: bytes, keystore: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, upstream = proxy("compreface")
    rotate = keystore.record_enrolment

    def rotated_meanwhile(*args: Any, **how: Any) -> str:
        keystore.rotate_gallery()
        return rotate(*args, **how)

    monkeypatch.setattr(keystore, "record_enrolment", rotated_meanwhile)
    assert refusal(made, request_for(LOADED["compreface"], "add_face", photo=photo))["status"] == 409
    assert [request.method for request in upstream.received] == ["POST", "DELETE"]
    assert list(keystore.enrolments()) == []


def test_a_token_in_the_place_of_a_photo_must_be_one_of_ours(proxy: Callable[..., Pair], photo: bytes) -> None:
    made, upstream = proxy("facepp")
    profile = LOADED["facepp"]
    request = request_for(profile, "search", "form", photo)
    given = {**httpx2.QueryParams(request.body.decode()), "face_token": "t1"}
    given.pop("image_base64")
    request = request_for(profile, "search", "form", raw=str(httpx2.QueryParams(given)).encode())
    assert refusal(made, request)["code"] == "bypass"
    assert upstream.received == []
    made.answer(request_for(profile, "detect", photo=photo), Rights())
    assert made.answer(request, Rights()).status == 200
    assert b"t1" in upstream.received[-1].content


def test_the_backs_ends_own_credentials_take_the_place_of_a_callers(proxy: Callable[..., Pair], photo: bytes) -> None:
    made, upstream = proxy("compreface", secrets={"x-api-key": "the real one"})
    made.answer(request_for(LOADED["compreface"], "recognize", photo=photo), Rights())
    sent = upstream.received[0].headers
    assert sent["x-api-key"] == "the real one"
    assert set(sent) <= {
        "host",
        "accept",
        "accept-encoding",
        "user-agent",
        "x-api-key",
        "content-type",
        "content-length",
    }


def test_limits_are_those_of_the_adapters() -> None:
    for module in (compreface, facepp, luxand):
        assert LOADED[module.NAME].limits.image_limit() == module.LIMIT
    assert LOADED["luxand"].collection == "people"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('purpose = "probe"', "disagree"),
        ('purpose = "nothing"', "purpose"),
        ('subject = "query.nobody"\npurpose = "read"', "there is no query.nobody"),
        ('purpose = "read"\nextra = 1', "extra"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(change: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'name = "own"\ntitle = "mine"\n[[routes]]\ncall = "ask"\nmethod = "GET"\npath = "ask"\n{change}\n')
    with pytest.raises(ConfigurationError, match=words):
        load_profile(file)


OWN = """
name = "own"
title = "An API of one's own"
[credentials]
headers = ["x-api-key"]
[[routes]]
call = "enrol"
method = "POST"
path = "people/{name}/faces"
purpose = "enrol"
bodies = ["raw"]
pictures.photo = {}
subject = "path.name"
entry = "{name}/{answer}"
answer_entry = "made.id"
undo = "DELETE people/{name}/faces/{answer}"
[[routes]]
call = "remove"
method = "DELETE"
path = "people/{name}/faces/{face}"
purpose = "delete"
entry = "{name}/{face}"
"""


def test_a_profile_of_ones_own_keeps_records_as_it_says(tmp_path: Path, photo: bytes, keystore: Keystore) -> None:
    file = tmp_path / "own.toml"
    file.write_text(OWN)
    profile = load_profile(file)
    upstream = Recording(profile)
    made = Proxy(profile, "http://127.0.0.1:1", QuickMixer(keystore), transport=upstream)
    upstream.next = [httpx2.Response(201, json={"made": {"id": 7}}), httpx2.Response(200, json={})]
    headers = (("content-type", "image/jpeg"), ("x-api-key", "k"))
    assert made.answer(Received("POST", "/people/alice/faces", "", headers, photo), Rights()).status == 201
    assert read_marker(upstream.received[0].content) is not None
    assert [(item.subject, item.external_id) for item in keystore.enrolments()] == [("alice", "alice/7")]
    assert made.answer(Received("DELETE", "/people/alice/faces/7", "", headers[1:], b""), Rights()).status == 200
    assert list(keystore.enrolments()) == []
    upstream.next = [httpx2.Response(201, json={"made": {}})]
    document = refusal(made, Received("POST", "/people/alice/faces", "", headers, photo))
    assert document["code"] == "enrolment"
    made.close()
