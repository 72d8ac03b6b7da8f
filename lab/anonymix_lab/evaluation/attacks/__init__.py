"""Attacks: each has a budget, a control, and runs on the baselines as well as on Anonymix.

The control is the same attack with somebody else's protected face in the place of the victim's: what it
reaches by luck, or because its guesses are everybody's. Success that is not above its control is none. And
an attack that fails on pixelation, too, is a weak attack and proves nothing: the report sets them side by
side.
"""

from anonymix_lab.evaluation.attacks._linkage import Linkage
from anonymix_lab.evaluation.attacks._preimage import PreImageSearch
from anonymix_lab.evaluation.attacks._reencode import ReEncoding
from anonymix_lab.evaluation.attacks._references import References
from anonymix_lab.evaluation.attacks._regression import RecordMultiplicity, Regression
from anonymix_lab.evaluation.attacks._simple import Direct, KeyGuessing, WithKey
from anonymix_lab.evaluation.attacks._student import Student
from anonymix_lab.evaluation.attacks._values import Attack, Attempt, Material, attack_parts, split_people

ATTACKS = {
    "direct": "Comparing the protected face with the person, as it is",
    "reencode": "Reading the protected face with our own encoder, and drawing it again",
    "regression": "Ridge regression from protected to original embeddings, trained on other people",
    "student": "A network distilled on (original, protected) pairs of other people",
    "multiplicity": "Regression over several records of one subject under different keys",
    "linkage": "Nearest neighbour between two databases under different keys",
    "preimage": "Search through the generator for a photo that gives the stolen template",
    "with-key": "Protecting a known photo with the stolen key, and comparing (by design possible)",
    "key-guessing": "Protecting a known photo under a guessed key",
    "references": "Regression from stolen references to original embeddings, with and without templates",
}

__all__ = [
    "ATTACKS",
    "Attack",
    "Attempt",
    "Direct",
    "KeyGuessing",
    "Linkage",
    "Material",
    "PreImageSearch",
    "ReEncoding",
    "RecordMultiplicity",
    "References",
    "Regression",
    "Student",
    "WithKey",
    "attack_parts",
    "split_people",
]
