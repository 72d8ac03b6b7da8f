"""Amazon Rekognition behind the mixer; boto3 finds account, region and endpoint in its environment."""

import tempfile
from pathlib import Path

import boto3

from anonymix_adapters.rekognition import protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))


def similarity(photo: bytes) -> float:
    with mixer.subject("anna"):
        found = client.search_faces_by_image(CollectionId="door", Image={"Bytes": photo}, FaceMatchThreshold=0)
    return found["FaceMatches"][0]["Similarity"]


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        client = protect(boto3.client("rekognition"), mixer)
        client.create_collection(CollectionId="door")
        client.index_faces(CollectionId="door", Image={"Bytes": anna[0]}, ExternalImageId="anna")
        print(f"anna again:  {similarity(anna[1]):.1f}")
        print(f"ben as anna: {similarity(ben[0]):.1f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:     {similarity(anna[1]):.1f}")
        client.delete_collection(CollectionId="door")
        client.close()
