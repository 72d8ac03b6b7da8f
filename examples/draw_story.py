"""Draw docs/images/story.jpg: people who do not exist, and their cancelable faces under two keys.

python examples/draw_story.py docs/images/story.jpg
"""

import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from anonymix_keystore import KeyState, SubjectKey
from anonymix_plugin import Anonymixer

SIDE, GAP, names = 150, 14, ("alex", "billie", "chris", "dana")
people = Path(__file__).parents[1] / "tests" / "people"


def key(subject: str, version: int = 1, scope: str = "default") -> SubjectKey:
    """The same key at every run, for this picture alone: real ones come from a Keystore."""
    return SubjectKey(subject, scope, version, KeyState.ACTIVE, sha256(f"{subject} {version}".encode()).digest())


fixed: Any = SimpleNamespace(at=key, current=key, current_or_issue=key, gallery=key, close=list)
with Anonymixer(fixed) as mixer:
    sheet = Image.new("RGB", (6 * SIDE + 2 * GAP, len(names) * SIDE), "white")
    for row, name in enumerate(names):
        photos = [people / f"{name}_{number}.jpg" for number in (1, 2)]
        pictures = [Image.open(photo) for photo in photos]
        for version in (1, 2):  # before and after a rotation
            pictures += [Image.fromarray(mixer.protect(it, subject=name, version=version).pixels) for it in photos]
        for column, picture in enumerate(pictures):
            small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (column * SIDE + column // 2 * GAP, row * SIDE))
output = Path(sys.argv[1] if len(sys.argv) > 1 else "story.jpg")
sheet.save(output, quality=88)
print(output)
