"""Draw docs/images/story.jpg: people who do not exist, and their cancelable faces under two keys.

python examples/draw_story.py docs/images/story.jpg
"""

import io
import sys
from pathlib import Path

from PIL import Image

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.demo.people import sample_people
from anonymix_plugin import Anonymixer

SIDE, GAP = 150, 14
people = 4

with Anonymixer(SeededKeys(7)) as mixer:
    sheet = Image.new("RGB", (6 * SIDE + 2 * GAP, people * SIDE), "white")
    for row, person in enumerate(sample_people(mixer.generator, people, photos=2)):
        photos = [photo.data for photo in person.photos]
        pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in photos]
        for version in (1, 2):
            for data in photos:
                face = mixer.protect(data, subject=person.name, version=version)
                pictures.append(Image.fromarray(face.pixels))
        for column, picture in enumerate(pictures):
            small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (column * SIDE + column // 2 * GAP, row * SIDE))
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "out/story.jpg")
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output, quality=88)
    print(output)
