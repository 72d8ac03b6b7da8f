"""The gateway over sockets, with the real mixer, in front of local servers with a real recogniser."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import httpx2
import pytest
from certificates import Issuer
from gateway_rig import gateway
from patience import PATIENCE, eventually, reserved_port
from servers import ALICE, BOB, SessionMixer, photo, recognition, session_mixer, witness
from servers.compreface import RECOGNITION_KEY, VERIFICATION_KEY, CompreFaceService
from servers.facepp import KEY, SECRET_KEY, FacePlusPlusService
from servers.luxand import TOKEN, LuxandService

from anonymix_adapters.gateway import Tokens
from anonymix_keystore import KeyFileUnlock, Keystore


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


def upload(person: str, mood: str = "neutral") -> tuple[str, bytes]:
    return "face.jpg", photo(person, mood).read_bytes()


def test_compreface_from_enrolment_to_rotation(mixer: SessionMixer) -> None:
    with (
        CompreFaceService(recognition()) as service,
        gateway("compreface", f"http://{service.host}", mixer) as url,
        httpx2.Client(base_url=f"{url}/api/v1/", headers={"x-api-key": RECOGNITION_KEY}, timeout=PATIENCE) as client,
    ):

        def found(person: str) -> list[str]:
            answer = client.post("recognition/recognize", files={"file": upload(person, "smiling")})
            guesses = [guess for face in answer.json()["result"] for guess in face["subjects"]]
            return [guess["subject"] for guess in guesses if guess["similarity"] >= 0.85]

        made = {
            name: client.post("recognition/faces", params={"subject": name}, files={"file": upload(person)})
            for name, person in (("alice", ALICE), ("bob", BOB))
        }
        assert [answer.status_code for answer in made.values()] == [201, 201]
        assert [found(ALICE), found(BOB)] == [["alice"], ["bob"]]
        example = made["alice"].json()["image_id"]
        answer = client.post(f"recognition/faces/{example}/verify", files={"file": upload(ALICE, "smiling")})
        assert answer.json()["result"][0]["similarity"] >= 0.85
        files = {"source_image": upload(ALICE), "target_image": upload(ALICE, "smiling")}
        compared = client.post("verification/verify", files=files, headers={"x-api-key": VERIFICATION_KEY})
        assert compared.json()["result"][0]["face_matches"][0]["similarity"] >= 0.85
        kept = client.get(f"recognition/faces/{example}/img")
        assert kept.content.startswith(b"\xff\xd8\xff")
        assert client.put("recognition/subjects/bob", json={"subject": "robert"}).status_code == 200
        assert {item.subject for item in mixer.keystore.enrolments()} == {"alice", "robert"}
        mixer.keystore.rotate_gallery()
        assert found(ALICE) == []
        assert {item.subject for item in mixer.keystore.due()} == {"alice", "robert"}
        assert client.request("DELETE", "recognition/faces", params={"subject": "alice"}).json() == {"deleted": 1}
        assert client.delete("recognition/subjects/robert").status_code == 200
        assert not [item for item in mixer.keystore.due() if item.delete]
        client.post("recognition/faces", params={"subject": "alice"}, files={"file": upload(ALICE)})
        assert found(ALICE) == ["alice"]
    assert witness().clear(service.received) >= 10


def test_face_plus_plus_by_tokens(mixer: SessionMixer) -> None:
    account = {"api_key": KEY, "api_secret": SECRET_KEY}
    with (
        FacePlusPlusService(recognition()) as service,
        gateway("facepp", f"http://{service.host}", mixer) as url,
        httpx2.Client(base_url=f"{url}/facepp/v3/", timeout=PATIENCE) as client,
    ):
        client.post("faceset/create", data={**account, "outer_id": "staff"})
        for name, person in (("alice", ALICE), ("bob", BOB)):
            detected = client.post("detect", data=account, files={"image_file": upload(person)}).json()
            token = detected["faces"][0]["face_token"]
            early = client.post("faceset/addface", data={**account, "outer_id": "staff", "face_tokens": token})
            assert early.json()["code"] == "subject_needed"
            client.post("face/setuserid", data={**account, "face_token": token, "user_id": name})
            added = client.post("faceset/addface", data={**account, "outer_id": "staff", "face_tokens": token})
            assert added.json()["face_added"] == 1
        probe = {"image_file": upload(BOB, "smiling")}
        answer = client.post("search", data={**account, "outer_id": "staff"}, files=probe).json()
        assert answer["results"][0]["user_id"] == "bob"
        assert {item.subject for item in mixer.keystore.enrolments()} == {"alice", "bob"}
        client.post("faceset/delete", data={**account, "outer_id": "staff", "check_empty": "0"})
        assert list(mixer.keystore.enrolments()) == []
        wrong = client.post("detect", data={**account, "api_secret": "wrong"}, files=probe)
        assert (wrong.status_code, wrong.json()["error_message"]) == (401, "AUTHENTICATION_ERROR")
    assert witness().clear(service.received) == 4


def test_luxand_by_names(mixer: SessionMixer) -> None:
    with (
        LuxandService(recognition()) as service,
        gateway("luxand", f"http://{service.host}", mixer) as url,
        httpx2.Client(base_url=url, headers={"token": TOKEN}, timeout=PATIENCE) as client,
    ):
        form = {"name": "alice", "collections": "", "store": "0"}
        person = client.post("v2/person", data=form, files={"photos": upload(ALICE)}).json()["uuid"]
        face = client.post(f"v2/person/{person}", files={"photos": upload(ALICE, "smiling")})
        assert face.status_code == 200
        assert {item.subject for item in mixer.keystore.enrolments()} == {"alice"}
        found = client.post("photo/search/v2", data={"collections": ""}, files={"photo": upload(ALICE)})
        assert found.json()[0]["name"] == "alice"
        other = client.post(f"photo/verify/{person}", files={"photo": upload(BOB)})
        assert other.json()["status"] == "failure"
        client.delete(f"v2/person/{person}/face/{face.json()['uuid']}")
        client.delete(f"person/{person}")
        assert list(mixer.keystore.enrolments()) == []
    assert witness().clear(service.received) == 4


def test_photos_that_cannot_be_used_are_problem_documents(mixer: SessionMixer) -> None:
    with (
        CompreFaceService(recognition()) as service,
        gateway("compreface", f"http://{service.host}", mixer) as url,
        httpx2.Client(base_url=f"{url}/api/v1/", headers={"x-api-key": RECOGNITION_KEY}, timeout=PATIENCE) as client,
    ):
        answer = client.post("recognition/recognize", files={"file": ("a.jpg", b"no picture")})
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_image")
        assert service.received == []


def test_the_command_serves_over_tls_and_ends_in_good_order(tmp_path: Path, model: Callable[[str], Path]) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    issuer = Issuer(tmp_path, "issuer")
    made = issuer.issue("localhost")
    unlock = KeyFileUnlock.generate(tmp_path / "key")
    with Keystore.create(tmp_path / "keystore.db", unlock) as store:
        store.gallery()
    tokens = Tokens(tmp_path / "tokens.json")
    secret, _ = tokens.create(["probe", "enrol"])
    port = reserved_port()
    with CompreFaceService(recognition()) as service:
        options = {
            "--upstream": f"http://{service.host}",
            "--port": str(port),
            "--tls-certificate": str(made.certificate),
            "--tls-key": str(made.key),
            "--callers": "tokens",
            "--tokens": str(tokens.path),
            "--upstream-secret": "x-api-key=COMPREFACE_KEY",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "anonymix_plugin", "gateway", *chain.from_iterable(options.items())],
            env=os.environ
            | {
                "ANONYMIX_KEYSTORE": str(tmp_path / "keystore.db"),
                "ANONYMIX_KEYFILE": str(tmp_path / "key"),
                "COMPREFACE_KEY": RECOGNITION_KEY,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        trust = ssl.create_default_context(cafile=str(issuer.own.certificate))
        try:
            with httpx2.Client(base_url=f"https://localhost:{port}", verify=trust, timeout=PATIENCE) as client:

                def ready() -> bool:
                    with suppress(httpx2.HTTPError):
                        return client.get("/v1/readyz").status_code == 200
                    return False

                assert eventually(ready)
                files = {"file": upload(ALICE)}
                path = "/api/v1/recognition/faces?subject=alice"
                assert client.post(path, files=files).status_code == 401
                enrolled = client.post(path, files=files, headers={"x-api-key": secret})
                assert enrolled.status_code == 201
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert '"call": "add_face", "status": 201' in said
    for text in (secret, RECOGNITION_KEY, "alice"):
        assert text not in said
    assert {received.headers["x-api-key"] for received in service.received} == {RECOGNITION_KEY}
    assert witness().clear(service.received) == 1
