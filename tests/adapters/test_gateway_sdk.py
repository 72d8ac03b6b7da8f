"""A client that nobody here wrote: CompreFace's official JavaScript SDK, through the gateway, unchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import gateway
from servers import ALICE, BOB, SessionMixer, photo, recognition, session_mixer, witness
from servers.compreface import RECOGNITION_KEY, VERIFICATION_KEY, CompreFaceService

pytestmark = pytest.mark.sdk
SCRIPT = Path(__file__).parent / "sdk" / "compreface.mjs"


@pytest.fixture
def mixer(tmp_path: Path, model: Callable[[str], Path]) -> Iterator[SessionMixer]:
    with session_mixer(tmp_path, model) as made:
        yield made


def sdk(url: str, *steps: tuple[str, ...]) -> list[Any]:
    """Run the SDK in a process of its own; photos are named relative to their folder."""
    server, port = url.rsplit(":", 1)
    command = ["node", str(SCRIPT), server, port, f"{RECOGNITION_KEY},{VERIFICATION_KEY}", json.dumps(steps)]
    done = subprocess.run(
        command, cwd=photo(ALICE).parent, env=os.environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def near(person: str, mood: str = "neutral") -> str:
    return f"./{photo(person, mood).name}"


def test_the_official_sdk_works_through_the_gateway_unchanged(mixer: SessionMixer) -> None:
    assert shutil.which("node"), "needs node: make test-gateway-sdk says how"
    with (
        CompreFaceService(recognition()) as service,
        gateway("compreface", f"http://{service.host}", mixer) as url,
    ):
        alice, bob = sdk(url, ("add", near(ALICE), "alice"), ("add", near(BOB), "bob"))
        assert (alice["subject"], bob["subject"]) == ("alice", "bob")
        assert {item.subject for item in mixer.keystore.enrolments()} == {"alice", "bob"}

        def named() -> list[str]:
            asked = [("recognize", near(person, "smiling")) for person in (ALICE, BOB)]
            guesses = [answer["result"][0]["subjects"][0] for answer in sdk(url, *asked)]
            return [guess["subject"] if guess["similarity"] >= 0.85 else "" for guess in guesses]

        assert named() == ["alice", "bob"]
        same, other, compared = sdk(
            url,
            ("verify", near(ALICE, "smiling"), alice["image_id"]),
            ("verify", near(BOB, "smiling"), alice["image_id"]),
            ("compare", near(ALICE), near(ALICE, "smiling")),
        )
        assert same["result"][0]["similarity"] >= 0.85 > other["result"][0]["similarity"]
        assert compared["result"][0]["face_matches"][0]["similarity"] >= 0.85

        mixer.keystore.rotate_gallery(reason="breach")
        assert named() == ["", ""]
        assert {item.subject for item in mixer.keystore.due() if item.delete} == {"alice", "bob"}
        sdk(url, ("deleteMany", alice["image_id"]), ("rename", "bob", "robert"), ("deleteSubject", "robert"))
        assert not [item for item in mixer.keystore.due() if item.delete]
        sdk(url, ("add", near(ALICE), "alice"), ("add", near(BOB), "bob"))
        assert named() == ["alice", "bob"]
    assert witness().clear(service.received) >= 13


def test_what_is_refused_reaches_the_sdk_as_an_error(mixer: SessionMixer) -> None:
    with (
        CompreFaceService(recognition()) as service,
        gateway("compreface", f"http://{service.host}", mixer) as url,
    ):
        (unknown,) = sdk(url, ("rename", "nobody", "data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAA"))
        assert (unknown["failed"], unknown["problem"]["code"]) == (403, "picture")
        assert service.received == []
