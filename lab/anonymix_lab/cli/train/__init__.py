"""`anonymix train`: make the weights that the project ships again."""

from anonymix_lab.cli.train import _anchors, _make, _mapper
from anonymix_lab.cli.train._app import app

__all__ = ["app"]

_COMMANDS = (_anchors, _make, _mapper)  # importing them is what adds their commands
