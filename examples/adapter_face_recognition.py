"""The package face_recognition behind the mixer. Its scores are distances: up to .6 is the same person."""

import io
import tempfile
from pathlib import Path

import face_recognition
import numpy as np

from anonymix_adapters.face_recognition import interceptor_of, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))


def embed(photo: bytes) -> np.ndarray:
    return face_recognition.face_encodings(face_recognition.load_image_file(io.BytesIO(photo)))[0]


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        face_recognition = protect(face_recognition, mixer)
        with interceptor_of(face_recognition).enrolment("anna", collection="door", external_id="1"):
            enrolled = embed(anna[0])
        with mixer.subject("anna"):
            print(f"anna again:  {face_recognition.face_distance([enrolled], embed(anna[1]))[0]:.2f}")
            print(f"ben as anna: {face_recognition.face_distance([enrolled], embed(ben[0]))[0]:.2f}")
        keys.rotate("anna", reason="breach")
        with mixer.subject("anna"):
            print(f"new key:     {face_recognition.face_distance([enrolled], embed(anna[1]))[0]:.2f}")
