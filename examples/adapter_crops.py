"""Any network that takes aligned crops behind the mixer, here ArcFace in ONNX Runtime."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from anonymix_adapters.crops import CropLayout, interceptor_of, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
layout, detector = CropLayout(size=112, alignment="arcface", mean=127.5, scale=127.5), YuNet(locate("yunet"))
session = onnxruntime.InferenceSession(str(locate("arcface-mbf")), providers=["CPUExecutionProvider"])


def embed(photo: bytes) -> np.ndarray:
    crop = recogniser_crop(detector.detect(decode_photo(photo))[0])
    vector = session.run(None, {session.get_inputs()[0].name: layout.from_pixels(crop[None])})[0][0]
    return vector / np.linalg.norm(vector)


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        protect(session, mixer, layout=layout)  # a torch.nn.Module is protected in the same way
        with interceptor_of(session).enrolment("anna", collection="door", external_id="1"):
            enrolled = embed(anna[0])
        with mixer.subject("anna"):
            print(f"anna again:  {enrolled @ embed(anna[1]):.2f}")
            print(f"ben as anna: {enrolled @ embed(ben[0]):.2f}")
        keys.rotate("anna", reason="breach")
        with mixer.subject("anna"):
            print(f"new key:     {enrolled @ embed(anna[1]):.2f}")
