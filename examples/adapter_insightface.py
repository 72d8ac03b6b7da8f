"""InsightFace's FaceAnalysis behind the mixer, with weights of the registry as its model pack."""

import shutil
import tempfile
from pathlib import Path

import cv2
import numpy as np
from insightface.app import FaceAnalysis

from anonymix_adapters.insightface import interceptor_of, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer
from anonymix_plugin.models import locate

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))


def embed(photo: bytes) -> np.ndarray:
    return app.get(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR))[0].normed_embedding


with tempfile.TemporaryDirectory() as folder:
    for name in ("arcface-mbf", "scrfd-500m"):
        shutil.copy(locate(name), folder)
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        app = protect(FaceAnalysis(name=folder, providers=["CPUExecutionProvider"]), mixer)
        app.prepare(ctx_id=-1)
        with interceptor_of(app).enrolment("anna", collection="door", external_id="1"):
            enrolled = embed(anna[0])
        with mixer.subject("anna"):
            print(f"anna again:  {enrolled @ embed(anna[1]):.2f}")
            print(f"ben as anna: {enrolled @ embed(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        with mixer.subject("anna"):
            print(f"new key:     {enrolled @ embed(anna[1]):.2f}")
