#!/bin/sh
# iso19794 0.1.0 writes face records (ISO/IEC 19794-5) that it cannot open under Pillow 10.1 or newer.
# The plug-in sets `self.mode` on opening, which is a read-only property since Pillow 10.1. Saving does not need it, so
# that a program writes records for years and notices when the first one is to be read. Pillow 10.0.1 opens them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check iso19794==0.1.0 pillow==13.0.0
env/bin/python - <<'END'
import io
from importlib.metadata import version

import iso19794  # registers its formats with Pillow
from PIL import Image

print("iso19794", version("iso19794"), "pillow", version("pillow"))
picture = Image.new("RGB", (200, 300), (200, 120, 90))
picture.header = {"image_data_type": "JPEG"}
record = io.BytesIO()
picture.save(record, "FAC", version="010")
print(f"saved: {len(record.getvalue())} bytes, {record.getvalue()[:8]!r}")
record.seek(0)
try:
    Image.open(record).load()
except AttributeError as error:
    print("opened:", type(error).__name__, error)
else:
    raise SystemExit("changed: the record can be opened")
END
