"""Azure Face behind the mixer, with Azure's own clients; AZURE_FACE_ENDPOINT and AZURE_FACE_KEY say where."""

import os
import tempfile
from pathlib import Path

from azure.ai.vision.face import FaceAdministrationClient, FaceClient
from azure.core.credentials import AzureKeyCredential

from anonymix_adapters.azure import protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
HOW = {"detection_model": "detection_03", "recognition_model": "recognition_04", "return_face_id": True}
account = os.environ["AZURE_FACE_ENDPOINT"], AzureKeyCredential(os.environ["AZURE_FACE_KEY"])


def confidence(photo: bytes) -> float:
    with mixer.subject("anna"):
        ids = {"face_id": faces.detect(photo, **HOW)[0].face_id, "person_id": person}
    return faces.verify_from_large_person_group(large_person_group_id="door", **ids).confidence


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        faces = protect(FaceClient(*account), mixer)
        groups = protect(FaceAdministrationClient(*account), mixer).large_person_group
        groups.create("door", name="door", recognition_model="recognition_04")
        person = groups.create_person("door", name="anna").person_id
        with mixer.subject("anna", enrol=True):
            groups.add_face("door", person, anna[0], detection_model="detection_03")
        print(f"anna again:  {confidence(anna[1]):.2f}\nben as anna: {confidence(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {confidence(anna[1]):.2f}")
        groups.delete("door")
