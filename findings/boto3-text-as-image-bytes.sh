#!/bin/sh
# boto3 1.44.8: a path given as Image={'Bytes': 'photo.jpg'} is sent to Rekognition as if the text were the picture.
# Blob parameters take `str`, which is encoded as UTF-8. A path or a base64 text in the place of bytes is not refused by
# the parameter validation: the service answers with InvalidImageFormatException, which reads like a damaged photo. The
# request is caught before it leaves.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check boto3==1.44.8 botocore==1.44.8
env/bin/python - <<'END'
import base64
import json

import boto3


class Caught(Exception):
    """The request, before it is sent."""


def catch(request, **_):
    raise Caught(request.body)


client = boto3.client("rekognition", region_name="eu-west-1", aws_access_key_id="none", aws_secret_access_key="none")
client.meta.events.register("before-send.rekognition.*", catch)
try:
    client.detect_faces(Image={"Bytes": "photos/someone.jpg"})
except Caught as request:
    sent = base64.b64decode(json.loads(request.args[0])["Image"]["Bytes"])
print("boto3", boto3.__version__)
print("given: a text; sent as the picture:", sent)
assert sent == b"photos/someone.jpg", "changed: text is not sent as a picture"
END
