"""`python -m anonymix_lab.cli.measure`: the same as `anonymix measure`, where nothing is installed."""

from anonymix_lab.cli.measure import app

if __name__ == "__main__":
    app()
