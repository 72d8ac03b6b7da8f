"""Tencent iai behind the mixer, with Tencent's own SDK; TENCENTCLOUD_SECRET_ID and _KEY say whose account."""

import base64
import os
import tempfile
from pathlib import Path

from tencentcloud.common.credential import EnvironmentVariableCredential
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.iai.v20200303.iai_client import IaiClient

from anonymix_adapters.tencent import protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
place = os.environ.get("TENCENTCLOUD_IAI_ENDPOINT", "https://iai.tencentcloudapi.com").split("://")
profile = ClientProfile(httpProfile=HttpProfile(protocol=place[0], endpoint=place[1]))


def score(photo: bytes) -> float:
    request = {"PersonId": "anna", "Image": base64.b64encode(photo).decode()}
    return client.call_json("VerifyFace", request)["Response"]["Score"]


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        client = protect(IaiClient(EnvironmentVariableCredential().get_credential(), "", profile), mixer)
        client.call_json("CreateGroup", {"GroupId": "door", "GroupName": "door"})
        person = {"GroupId": "door", "PersonId": "anna", "PersonName": "Anna"}
        client.call_json("CreatePerson", person | {"Image": base64.b64encode(anna[0]).decode()})
        print(f"anna again:  {score(anna[1]):.1f}\nben as anna: {score(ben[0]):.1f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {score(anna[1]):.1f}")
        client.call_json("DeletePerson", {"PersonId": "anna"})
