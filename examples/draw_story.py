"""Draw docs/images/story.jpg: people who do not exist, and their cancelable faces under two keys.

python examples/draw_story.py docs/images/story.jpg
"""

import sys
from hashlib import sha256
from pathlib import Path

from PIL import Image

from anonymix_keystore import KeyState, SubjectKey
from anonymix_plugin import Anonymixer

SIDE, GAP = 150, 14
people = Path(__file__).parents[1] / "tests" / "people"
names = ("alex", "billie", "chris", "dana")


class FixedKeys:
    """Keys that are the same at every run, for this picture alone: real ones come from a Keystore."""

    def at(self, subject: str, version: int, scope: str = "default") -> SubjectKey:
        return SubjectKey(subject, scope, version, KeyState.ACTIVE, sha256(f"{subject} {version}".encode()).digest())

    def current(self, subject: str, scope: str = "default") -> SubjectKey:
        return self.at(subject, 1, scope)

    current_or_issue = current

    def gallery(self, scope: str = "default") -> SubjectKey:
        return self.at("", 1, scope)

    def close(self) -> None:
        pass


with Anonymixer(FixedKeys()) as mixer:
    sheet = Image.new("RGB", (6 * SIDE + 2 * GAP, len(names) * SIDE), "white")
    for row, name in enumerate(names):
        photos = [people / f"{name}_{number}.jpg" for number in (1, 2)]
        pictures = [Image.open(photo) for photo in photos]
        for version in (1, 2):  # before and after a rotation
            pictures += [Image.fromarray(mixer.protect(it, subject=name, version=version).pixels) for it in photos]
        for column, picture in enumerate(pictures):
            small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (column * SIDE + column // 2 * GAP, row * SIDE))

output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/story.jpg")
output.parent.mkdir(parents=True, exist_ok=True)
sheet.save(output, quality=88)
print(output)
