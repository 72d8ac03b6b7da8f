"""DeepFace behind the mixer, offline: register and identify in an SQLite database, SFace weights in place."""

import os
import shutil
import tempfile
from pathlib import Path

from anonymix_adapters.deepface import protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer
from anonymix_plugin.models import locate

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([str(people / f"{name}_{number}.jpg") for number in (1, 2)] for name in ("alex", "billie"))

with tempfile.TemporaryDirectory() as folder:
    os.environ["DEEPFACE_HOME"] = folder
    weights = Path(folder) / ".deepface" / "weights"
    weights.mkdir(parents=True)
    shutil.copy(locate("sface"), weights / "face_recognition_sface_2021dec.onnx")
    from deepface import DeepFace

    how = {"model_name": "SFace", "detector_backend": "skip"}
    store = {"database_type": "sqlite", "connection_details": str(Path(folder) / "faces.db")}
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        deepface = protect(DeepFace, mixer)
        deepface.register(anna[0], "anna.jpg", subject="anna", **how, **store)
        for name, photo in (("anna again", anna[1]), ("ben as anna", ben[0])):
            print(f"{name}: {deepface.identify(photo, 1, **how, **store)['distance']:.2f}")
        keys.rotate("anna", reason="breach")
        print(f"new key: {deepface.identify(anna[1], 1, **how, **store)['distance']:.2f}")
