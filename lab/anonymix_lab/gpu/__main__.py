"""`python -m anonymix_lab.gpu`: the same as `anonymix measure gpu`, where nothing is installed."""

import sys

from anonymix_lab.cli.measure import app

if __name__ == "__main__":
    app(["gpu", *sys.argv[1:]])
