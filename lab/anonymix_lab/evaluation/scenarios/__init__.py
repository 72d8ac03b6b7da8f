"""Scenarios: who holds which key, and what is compared with what.

- unprotected: photos as they are.
- own-key: each subject under a key of its own; an impostor's probe is under the impostor's own key. Keys do
  part of the work here: an error rate of zero would say nothing about faces.
- claimed: the same, but an impostor's probe is mixed under the key of the person whom it claims to be, as a
  keystore that goes by the claimed identity does it.
- guided: as claimed, and the keystore keeps references. The first photo of a pair enrols its person. Genuine
  or not, the second one is protected under that person's key and by that person's reference.
- guided-one-key: the same under one key for everybody.
- references: codes of the first photos against codes of the second ones. That is what a thief of an unlocked
  store can tell with references alone, and what no guided face can do better.
- one-key: everybody under the same key, the worst case (stolen token).
- anonymity: photos against protected faces of the same person.
- renewal: a person's old key against its new key.
- scopes: a person's key in one application against its key in another.
"""

from anonymix_lab.evaluation.scenarios._compare import Comparisons, cross_pairs, scores_of
from anonymix_lab.evaluation.scenarios._draw import OWN, Claims, Drawn, draw
from anonymix_lab.evaluation.scenarios._measure import Measured, measure_scenarios

TITLES = {
    "unprotected": "Unprotected",
    "own-key": "A key each",
    "claimed": "Impostor under the claimed person’s key",
    "guided": "Guided by the claimed person’s reference, a key each",
    "guided-one-key": "Guided by the claimed person’s reference, one key",
    "references": "References alone against photos",
    "one-key": "One key for everybody",
    "anonymity": "Photo against its own protected face",
    "anonymity-other-photo": "Another photo of the person against the protected face",
    "renewal": "Old key against new key",
    "renewal-same-photo": "Old key against new key, the very same photo",
    "scopes": "One application against another",
    "scopes-same-photo": "One application against another, the very same photo",
}

__all__ = [
    "OWN",
    "TITLES",
    "Claims",
    "Comparisons",
    "Drawn",
    "Measured",
    "cross_pairs",
    "draw",
    "measure_scenarios",
    "scores_of",
]
