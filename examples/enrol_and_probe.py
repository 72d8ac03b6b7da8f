"""Enrol two people who do not exist, probe with another photo of one of them, then revoke the key.

Run it as it is, after `anonymix models pull`: python examples/enrol_and_probe.py
"""

import tempfile
from pathlib import Path

import numpy as np

from anonymix_keystore import Keystore, KeystoreError, PassphraseUnlock
from anonymix_plugin import Anonymixer
from anonymix_plugin.verification import Verifier

people = Path(__file__).parents[1] / "tests" / "people"
anna, ben = ([people / f"{name}_{number}.jpg" for number in (1, 2)] for name in ("alex", "billie"))
recogniser = Verifier("arcface-mbf", "fmr-0.1%")  # the stack behind: it never sees a real photo


def embed(photo: Path, subject: str) -> np.ndarray:
    return recogniser.embed(mixer.protect(photo, subject=subject, enrol=True))


with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        enrolled = embed(anna[0], "anna")
        print(f"anna again:   {enrolled @ embed(anna[1], 'anna'):.2f}")
        print(f"ben instead:  {enrolled @ embed(ben[0], 'ben'):.2f}")
        keys.rotate("anna", reason="breach")
        print(f"new key:      {enrolled @ embed(anna[0], 'anna'):.2f}")
        keys.revoke("anna", reason="left")
        try:
            embed(anna[1], "anna")
        except KeystoreError as error:
            print(f"revoked:      {error}")
