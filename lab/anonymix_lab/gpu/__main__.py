"""`python -m anonymix_lab.gpu`: the same as `anonymix measure gpu`, where nothing is installed."""

from anonymix_lab.cli.measure import app

if __name__ == "__main__":
    app(["gpu", *__import__("sys").argv[1:]])
