"""Run a command against a local back end: the environment that adapters and examples read leads to it.

cd tests/adapters
python -m servers rekognition -- anonymix drill --adapter rekognition --photos DIR
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from servers import azure, compreface, facepp, luxand, rekognition, tencent
from servers._recognition import Recognition
from servers._service import LocalService
from servers._signatures import ACCESS_KEY, SECRET

Kind = tuple[Callable[[Recognition], LocalService], Callable[[Any], dict[str, str]]]

KINDS: dict[str, Kind] = {
    "rekognition": (
        rekognition.RekognitionService,
        lambda it: {
            "AWS_ENDPOINT_URL_REKOGNITION": it.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "eu-west-1",
        },
    ),
    "azure": (
        azure.AzureFaceService,
        lambda it: {"AZURE_FACE_ENDPOINT": it.url, "AZURE_FACE_KEY": azure.KEY},
    ),
    "facepp": (
        facepp.FacePlusPlusService,
        lambda it: {
            "FACEPP_URL": it.url,
            "FACEPP_API_KEY": facepp.KEY,
            "FACEPP_API_SECRET": facepp.SECRET_KEY,
        },
    ),
    "compreface": (
        compreface.CompreFaceService,
        lambda it: {
            "COMPREFACE_URL": f"http://{it.host}",
            "COMPREFACE_RECOGNITION_KEY": compreface.RECOGNITION_KEY,
        },
    ),
    "luxand": (
        luxand.LuxandService,
        lambda it: {"LUXAND_URL": it.url, "LUXAND_TOKEN": luxand.TOKEN},
    ),
    "tencent": (
        tencent.TencentService,
        lambda it: {
            "TENCENTCLOUD_IAI_ENDPOINT": f"http://{it.host}",
            "TENCENTCLOUD_SECRET_ID": ACCESS_KEY,
            "TENCENTCLOUD_SECRET_KEY": SECRET,
        },
    ),
}
"""Each back end's server, and the environment that leads to it."""


def main(arguments: Sequence[str]) -> int:
    """Start a server, run the command, return its exit code."""
    if len(arguments) < 2 or arguments[0] not in KINDS:
        print(f"usage: python -m servers {'|'.join(KINDS)} -- COMMAND ...", file=sys.stderr)  # noqa: T201
        return 2
    start, environment = KINDS[arguments[0]]
    command = list(arguments[1:])
    if command[0] == "--":
        del command[0]
    with start(Recognition()) as service:
        return subprocess.run(command, env=os.environ | environment(service), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
