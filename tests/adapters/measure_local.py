"""`anonymix measure adapters` on all local adapters, in the environment of `make test-adapters`."""

from __future__ import annotations

import sys

import torchvision_nms
from test_conformance import LOCAL

from anonymix_plugin.cli import main

if __name__ == "__main__":
    torchvision_nms.define()  # before facenet-pytorch is imported, which needs it
    sys.exit(main(["measure", "adapters", *LOCAL, *sys.argv[1:]]))
