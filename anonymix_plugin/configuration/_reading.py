"""Finding and reading the configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from anonymix_plugin.configuration._values import Configuration
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.places import by_default, named_by

_FILE = "anonymix.toml"


def configuration_file() -> Path | None:
    """Path of the configuration file: `ANONYMIX_CONFIG`, or `anonymix.toml` in the platform's folder.

    None where neither is to be had: a user without a home has no configuration.
    """
    own = named_by("ANONYMIX_CONFIG")
    if own is not None:
        return own
    folder = by_default(lambda: platformdirs.user_config_path("anonymix", False))
    return None if folder is None else folder / _FILE


def load_configuration(path: Path | None = None) -> Configuration:
    """Read and check the configuration.

    Args:
        path: The file; `configuration_file()` by default. Only the platform's own file may be absent.

    Raises:
        ConfigurationError: The file was named but is missing, can't be read, is no TOML, or has a field
            that is unknown or wrong; the error names the field.
    """
    named = path is not None or bool(os.environ.get("ANONYMIX_CONFIG"))
    path = configuration_file() if path is None else path
    if path is None:
        return Configuration()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not named:
            return Configuration()
        raise ConfigurationError(
            "the configuration file does not exist", where=str(path), fix="create it or unset ANONYMIX_CONFIG"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"can't be read: {error}", where=str(path)) from error
    from anonymix_plugin.configuration._schema import checked  # pydantic, for those who have a file

    return checked(text, path)
