#!/bin/sh
# Pillow 13.0.0: saving AVIF removes the orientation from the caller's own Exif object.
# The AVIF writer moves the orientation into the file's `irot` and `imir` properties and deletes the tag from the object
# that it was given. A second save with the same object, in any format, has no orientation. JPEG, WebP, PNG and TIFF
# leave the object as it is.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check pillow==13.0.0
env/bin/python - <<'END'
import io

import PIL
from PIL import Image

print("pillow", PIL.__version__)
kept = {}
for name in ("JPEG", "WEBP", "PNG", "TIFF", "AVIF"):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 32)).save(io.BytesIO(), name, exif=exif)
    kept[name] = exif.get(0x0112)
    print(f"{name}: orientation of the caller's object after saving: {kept[name]}")
assert kept.pop("AVIF") is None, "changed: AVIF leaves the caller's object as it is"
assert set(kept.values()) == {6}
END
