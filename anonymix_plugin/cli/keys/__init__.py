"""`anonymix keys`: look after the keystore."""

from typing import TYPE_CHECKING

from anonymix_plugin.by_need import imported_by_need
from anonymix_plugin.cli.keys._opening import default_keystore, open_keys, open_keystore, passphrase_of

if TYPE_CHECKING:
    from anonymix_plugin.cli.keys._commands import app

__all__ = ["app", "default_keystore", "open_keys", "open_keystore", "passphrase_of"]

# Commands that only open the store need none of the group's.
__getattr__ = imported_by_need(__name__, {"app": f"{__name__}._commands"})
