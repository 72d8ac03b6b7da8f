"""`python -m anonymix_plugin` is the same as `anonymix`."""

from __future__ import annotations

import sys

from anonymix_plugin.cli import main

if __name__ == "__main__":
    sys.exit(main())
