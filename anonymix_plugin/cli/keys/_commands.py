"""All commands of the group, in order."""

from anonymix_plugin.cli.keys import _care, _life, _scope, _serve, _store
from anonymix_plugin.cli.keys._app import app

__all__ = ["app"]

_COMMANDS = (_life, _care, _scope, _store, _serve)  # importing them is what adds their commands
_ORDER = (
    *("init", "status", "list", "show", "issue", "rotate", "retire", "revoke", "forget", "due", "expire"),
    *("audit", "verify", "rewrap", "backup", "restore", "change-unlock", "tie-anchor", "drop-reference", "serve"),
    "accept-damage",
)
# The help lists commands in the order in which a store's life needs them, wherever they are defined.
app.registered_commands.sort(key=lambda command: _ORDER.index(str(command.name)))
