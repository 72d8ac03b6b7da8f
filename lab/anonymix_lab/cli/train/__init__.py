"""`anonymix train`: make the weights that the project ships again."""

from anonymix_lab.cli.train import _anchors, _make, _mapper, _small
from anonymix_lab.cli.train._app import app

__all__ = ["app"]

_COMMANDS = (_anchors, _make, _mapper, _small)  # importing them is what adds their commands
