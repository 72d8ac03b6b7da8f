"""The user's configuration: a TOML file that every field of which is checked.

```toml
[models.arcface-mbf]                     # another recogniser in the place of the registry's
path = "weights/my_arcface.onnx"         # relative to the configuration file
sha256 = "9cc6...eb4f"                   # enters the mixer's fingerprint

[models.mobilestylegan.files."SynthesisNetwork.bin"]   # a model of several files: one of them
path = "/srv/weights/SynthesisNetwork.bin"
sha256 = "c7da...9645"

[limits]                                 # of photos, as in images.ImageLimits
max_pixels = 110_000_000

[keystore]
busy_timeout = 30                        # seconds to wait for other writers
```
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from anonymix_plugin.errors import ConfigurationError, UsageError
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.places import by_default, expanded, named_by
from anonymix_plugin.registry import REGISTRY, entry

_FILE = "anonymix.toml"


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OwnFile(_Checked):
    """A file of the user's in the place of a file of the registry.

    The hash is not optional: a file that changes unnoticed would change every cancelable face with it.

    Attributes:
        path: Where it lies; a relative path is taken from the folder of the configuration file.
        sha256: Its SHA-256, 64 lower-case hex digits.
    """

    path: Path
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class OwnModel(_Checked):
    """The user's own weights for one model: one file by `path` and `sha256`, or several by `files`.

    Attributes:
        path: As in `OwnFile`, for a model of a single file.
        sha256: As in `OwnFile`, for a model of a single file.
        files: Files by their names in the registry.
    """

    path: Path | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    files: dict[str, OwnFile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> OwnModel:
        if (self.path is None) != (self.sha256 is None):
            raise ValueError("path and sha256 must be given together")
        if (self.path is None) == (not self.files):
            raise ValueError("give either path and sha256, or files")
        return self


class OwnLimits(_Checked):
    """The user's own limits of photos; what is left out stays as it is.

    Attributes:
        max_bytes: As in `images.ImageLimits`, and so are the others.
    """

    max_bytes: int | None = None
    max_pixels: int | None = None
    max_side: int | None = None
    min_side: int | None = None
    max_faces: int | None = None

    @model_validator(mode="after")
    def _sensible(self) -> OwnLimits:
        try:
            self.image_limits()
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def image_limits(self) -> ImageLimits:
        """The limits, complete."""
        return ImageLimits(**self.model_dump(exclude_none=True))


class OwnKeystore(_Checked):
    """How keystores are used.

    Attributes:
        busy_timeout: Seconds to wait for other writers.
    """

    busy_timeout: float = Field(default=10.0, ge=0, le=3600, allow_inf_nan=False)


class Configuration(_Checked):
    """The whole configuration; an absent file is the same as an empty one.

    Attributes:
        models: The user's own weights, by name of the model in the registry.
        limits: How big and how small photos may be.
        keystore: How keystores are used.
    """

    models: dict[str, OwnModel] = Field(default_factory=dict)
    limits: OwnLimits | None = None
    keystore: OwnKeystore = Field(default_factory=OwnKeystore)

    @model_validator(mode="after")
    def _known_names(self) -> Configuration:
        for name, own in self.models.items():
            if name not in REGISTRY:
                raise ValueError(f"models.{name}: no model of that name is in the registry")
            known = [file.name for file in REGISTRY[name].files]
            if own.path is not None and len(known) > 1:
                raise ValueError(f"models.{name}: this model has several files, give them under files")
            for file in own.files:
                if file not in known:
                    raise ValueError(f"models.{name}.files.{file}: the model's files are {', '.join(known)}")
        return self

    def image_limits(self) -> ImageLimits:
        """How big and how small photos may be."""
        return (self.limits or OwnLimits()).image_limits()

    def replacements(self, name: str) -> Mapping[str, OwnFile]:
        """The user's files for a model, by name of the file that each one replaces."""
        own = self.models.get(name)
        if own is None:
            return {}
        if own.path is None or own.sha256 is None:
            return own.files
        return {entry(name).files[0].name: OwnFile(path=own.path, sha256=own.sha256)}


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
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not named:
            return Configuration()
        raise ConfigurationError(
            "the configuration file does not exist", where=str(path), fix="create it or unset ANONYMIX_CONFIG"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"can't be read: {error}", where=str(path)) from error
    try:
        configuration = Configuration.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(_first_fault(error), where=str(path)) from error
    return configuration.model_copy(update={"models": _absolute(configuration.models, path.absolute().parent)})


def _absolute(models: dict[str, OwnModel], folder: Path) -> dict[str, OwnModel]:
    def place(file: Any) -> Any:
        return file.model_copy(update={"path": folder / expanded(file.path, "path")}) if file.path else file

    return {
        name: place(own).model_copy(update={"files": {key: place(file) for key, file in own.files.items()}})
        for name, own in models.items()
    }


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
