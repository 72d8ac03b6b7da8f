"""Local back ends that speak the wire formats of commercial APIs, for tests."""

from servers._recognition import Recognition
from servers._rig import (
    ALICE,
    BOB,
    SessionMixer,
    blank,
    photo,
    recognition,
    run_example,
    session_mixer,
    trial,
    witness,
)
from servers._service import LocalService, Received
from servers._signatures import ACCESS_KEY, SECRET
from servers._witness import Witness, pictures

__all__ = [
    "ACCESS_KEY",
    "ALICE",
    "BOB",
    "SECRET",
    "LocalService",
    "Received",
    "Recognition",
    "SessionMixer",
    "Witness",
    "blank",
    "photo",
    "pictures",
    "recognition",
    "run_example",
    "session_mixer",
    "trial",
    "witness",
]
