"""OpenCV's face recogniser behind the mixer. Run it as it is, after `anonymix models pull`."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from anonymix_adapters.opencv import interceptor_of, protect
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer
from anonymix_plugin.models import locate

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([(people / f"{name}_{n}.jpg").read_bytes() for n in (1, 2)] for name in ("alex", "billie"))
detector = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (320, 320))


def embed(photo: bytes) -> np.ndarray:
    """What the host did before; not a line of it changes."""
    picture = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
    detector.setInputSize((picture.shape[1], picture.shape[0]))
    return recogniser.feature(recogniser.alignCrop(picture, detector.detect(picture)[1][0]))


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        recogniser = protect(cv2.FaceRecognizerSF.create(str(locate("sface")), ""), mixer)
        with interceptor_of(recogniser).enrolment("anna", collection="door", external_id="1"):
            enrolled = embed(anna[0])
        with mixer.subject("anna"):
            print(f"anna again:  {recogniser.match(enrolled, embed(anna[1])):.2f}")
            print(f"ben as anna: {recogniser.match(enrolled, embed(ben[0])):.2f}")
        keys.rotate("anna", reason="breach")
        with mixer.subject("anna"):
            print(f"new key:     {recogniser.match(enrolled, embed(anna[1])):.2f}")
        for entry in interceptor_of(recogniser).due("door"):
            print(f"to do:       delete entry {entry.external_id}, enrol {entry.subject} again")
