#!/bin/sh
# pillow-heif 1.8.1: a photo saved with an Exif object is not turned when it is opened; with the object's bytes it is.
# HEIF keeps the turn of a picture in a box of its own. pillow-heif fills that box from the orientation tag when `exif=`
# is bytes. When `exif=` is a `PIL.Image.Exif`, which Pillow's other writers take, the orientation is lost: portrait
# photos lie on their side.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check pillow-heif==1.8.1 pillow==13.0.0
env/bin/python - <<'END'
import io

import pillow_heif
import PIL
from PIL import Image, ImageOps

pillow_heif.register_heif_opener()
print("pillow-heif", pillow_heif.__version__, "pillow", PIL.__version__)
sizes = {}
for kind in ("Exif object", "bytes"):
    exif = Image.Exif()
    exif[0x0112] = 6  # a portrait photo, stored lying
    file = io.BytesIO()
    Image.new("RGB", (64, 32)).save(file, "HEIF", exif=exif if kind == "Exif object" else exif.tobytes())
    sizes[kind] = ImageOps.exif_transpose(Image.open(file)).size
    print(f"exif={kind}: saved (64, 32) with orientation 6, opened and transposed {sizes[kind]}")
assert sizes["bytes"] == (32, 64)
assert sizes["Exif object"] == (64, 32), "changed: the orientation of an Exif object is kept"
END
