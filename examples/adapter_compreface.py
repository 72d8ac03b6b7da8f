"""CompreFace behind the mixer; COMPREFACE_URL and COMPREFACE_RECOGNITION_KEY say where."""

import os
import tempfile
from pathlib import Path

from anonymix_adapters.compreface import CompreFace, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
url, key = os.environ["COMPREFACE_URL"], os.environ["COMPREFACE_RECOGNITION_KEY"]


def similarity(photo: bytes) -> float:
    with mixer.subject("anna"):
        return client.recognize(photo).result[0].subjects[0].similarity


with tempfile.TemporaryDirectory() as folder, CompreFace(url, recognition_key=key) as client:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        protect(client, mixer)
        client.add_face("anna", anna[0])
        print(f"anna again:  {similarity(anna[1]):.2f}")
        print(f"ben as anna: {similarity(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {similarity(anna[1]):.2f}")
        client.delete_subject("anna")
