"""`anonymix measure`: one door to everything that measures; `anonymix evaluate` proves, on a data set."""

from anonymix_lab.cli.measure import (
    _adapters,
    _bulk,
    _codes,
    _formats,
    _gateway,
    _gpu,
    _keyservice,
    _keystore,
    _london,
    _scale,
    _searching,
    _speed,
    _studies,
    _thresholds,
)
from anonymix_lab.cli.measure._app import app

__all__ = ["app"]

_COMMANDS = (
    _london,
    _thresholds,
    _adapters,
    _bulk,
    _codes,
    _searching,
    _formats,
    _gateway,
    _keystore,
    _keyservice,
    _gpu,
    _scale,
    _speed,
    _studies,
)  # imported to add them
