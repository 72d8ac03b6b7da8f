"""Face++ behind the mixer; FACEPP_API_KEY, FACEPP_API_SECRET (and FACEPP_URL) say whose account."""

import os
import tempfile
from pathlib import Path

from anonymix_adapters.facepp import FacePlusPlus, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
url = os.environ.get("FACEPP_URL", "https://api-us.faceplusplus.com/facepp/v3/")
account = os.environ["FACEPP_API_KEY"], os.environ["FACEPP_API_SECRET"]


def confidence(photo: bytes) -> float:
    with mixer.subject("anna"):
        return client.search(photo, "door").results[0].confidence


with tempfile.TemporaryDirectory() as folder, FacePlusPlus(*account, url=url) as client:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        protect(client, mixer)
        client.create_face_set("door")
        with mixer.subject("anna", enrol=True):
            token = client.detect(anna[0]).faces[0].face_token
        client.add_faces("door", [token])
        print(f"anna again:  {confidence(anna[1]):.1f}")
        print(f"ben as anna: {confidence(ben[0]):.1f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {confidence(anna[1]):.1f}")
        client.delete_face_set("door")
