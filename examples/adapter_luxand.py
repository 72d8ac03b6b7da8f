"""Luxand.cloud behind the mixer; LUXAND_TOKEN (and LUXAND_URL, for another address) say where."""

import os
import tempfile
from pathlib import Path

from anonymix_adapters.luxand import Luxand, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
url = os.environ.get("LUXAND_URL", "https://api.luxand.cloud/")


def probability(photo: bytes) -> float:
    with mixer.subject("anna"):
        return client.verify(person, photo).probability


with tempfile.TemporaryDirectory() as folder, Luxand(os.environ["LUXAND_TOKEN"], url=url) as client:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        protect(client, mixer)
        person = client.add_person("anna", anna[0], collections=["door"]).uuid
        print(f"anna again:  {probability(anna[1]):.2f}")
        print(f"ben as anna: {probability(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {probability(anna[1]):.2f}")
        client.delete_person(person)
