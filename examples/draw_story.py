"""Draw docs/images/story.jpg: people who do not exist, and their cancelable faces under two keys.

python examples/draw_story.py docs/images/story.jpg
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import Anonymixer

SIDE, GAP = 150, 14
people = Path(__file__).parents[1] / "tests" / "people"
names = ("alex", "billie", "chris", "dana")

with tempfile.TemporaryDirectory() as folder:
    unlock = PassphraseUnlock(b"correct horse battery staple")
    with Keystore.create(Path(folder) / "keys.db", unlock) as keys, Anonymixer(keys) as mixer:
        sheet = Image.new("RGB", (6 * SIDE + 2 * GAP, len(names) * SIDE), "white")
        for row, name in enumerate(names):
            photos = [people / f"{name}_{number}.jpg" for number in (1, 2)]
            pictures = [Image.open(photo) for photo in photos]
            pictures += [Image.fromarray(mixer.protect(it, subject=name, enrol=True).pixels) for it in photos]
            keys.rotate(name, reason="breach")
            pictures += [Image.fromarray(mixer.protect(it, subject=name).pixels) for it in photos]
            for column, picture in enumerate(pictures):
                small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                sheet.paste(small, (column * SIDE + column // 2 * GAP, row * SIDE))
        output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/story.jpg")
        output.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(output, quality=88)
        print(output)
