"""Enrol two people who do not exist, probe with another photo of one of them, then revoke the key.

Run it as it is, after `anonymix models pull`: python examples/enrol_and_probe.py
"""

import tempfile
from pathlib import Path

import numpy as np

from anonymix_keystore import Keystore, KeystoreError, PassphraseUnlock
from anonymix_lab.demo.people import sample_people
from anonymix_plugin import Anonymixer, CancelableFace
from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo

recogniser = load_recogniser("arcface-mbf")  # the stack behind: it never sees a real photo
detector = YuNet(locate("yunet"))


def embed(face: CancelableFace) -> np.ndarray:
    found = detector.detect(Photo(face.pixels, "cancelable face"))[0]
    return recogniser.embed(recogniser_crop(found)[None])[0]


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        anna, ben = ([photo.data for photo in person.photos] for person in sample_people(mixer.generator, 2))
        enrolled = embed(mixer.protect(anna[0], subject="anna", enrol=True))
        stranger = embed(mixer.protect(ben[0], subject="ben", enrol=True))
        probe = embed(mixer.protect(anna[1], subject="anna"))
        print(f"anna again:   {enrolled @ probe:.2f}")
        print(f"ben instead:  {enrolled @ stranger:.2f}")

        keys.rotate("anna", reason="breach")
        print(f"new key:      {enrolled @ embed(mixer.protect(anna[0], subject='anna')):.2f}")

        keys.revoke("anna", reason="left")
        try:
            mixer.protect(anna[1], subject="anna")
        except KeystoreError as error:
            print(f"revoked:      {error}")
