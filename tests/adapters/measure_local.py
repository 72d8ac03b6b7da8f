"""`anonymix measure adapters` on all local adapters, in the environment of `make test-adapters`.

With "speed" first: `anonymix measure speed`, whose stacks need that environment.
"""

from __future__ import annotations

import sys

import torchvision_nms
from test_conformance import LOCAL

from anonymix_plugin.cli import main

if __name__ == "__main__":
    torchvision_nms.define()  # before facenet-pytorch is imported, which needs it
    given = sys.argv[1:]
    sys.exit(main(["measure", *(given if given[:1] == ["speed"] else ["adapters", *LOCAL, *given])]))
