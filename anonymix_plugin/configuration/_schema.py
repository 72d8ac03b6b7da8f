"""Which fields a configuration file may have, and what may stand in them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from anonymix_plugin.configuration._values import Configuration, OwnFile
from anonymix_plugin.errors import ConfigurationError, UsageError
from anonymix_plugin.limits import ImageLimits
from anonymix_plugin.places import expanded
from anonymix_plugin.registry import REGISTRY, SHA256, entry

_Sha256 = Annotated[str, StringConstraints(pattern=SHA256)]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _OwnFile(_Checked):
    path: Path
    sha256: _Sha256


class _OwnModel(_Checked):
    """The user's own weights for one model: one file by `path` and `sha256`, or several by `files`."""

    path: Path | None = None
    sha256: _Sha256 | None = None
    files: dict[str, _OwnFile] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> _OwnModel:
        if (self.path is None) != (self.sha256 is None):
            raise ValueError("path and sha256 must be given together")
        if (self.path is None) == (not self.files):
            raise ValueError("give either path and sha256, or files")
        return self

    def by_file(self, name: str) -> dict[str, _OwnFile]:
        """Its files, by name of the file of the registry's model that each one replaces."""
        if self.path is None or self.sha256 is None:
            return self.files
        return {entry(name).files[0].name: _OwnFile(path=self.path, sha256=self.sha256)}


class _OwnLimits(_Checked):
    """The user's own limits of photos; what is left out stays as it is."""

    max_bytes: int | None = None
    max_pixels: int | None = None
    max_side: int | None = None
    min_side: int | None = None
    max_faces: int | None = None

    @model_validator(mode="after")
    def _sensible(self) -> _OwnLimits:
        try:
            self.image_limits()
        except UsageError as error:
            raise ValueError(str(error)) from None
        return self

    def image_limits(self) -> ImageLimits:
        """The limits, complete."""
        return ImageLimits(**self.model_dump(exclude_none=True))


class _OwnKeystore(_Checked):
    busy_timeout: float = Field(default=Configuration.busy_timeout, ge=0, le=3600, allow_inf_nan=False)


class _OwnNetworks(_Checked):
    keep: bool = Configuration.keep_networks


class _File(_Checked):
    models: dict[str, _OwnModel] = Field(default_factory=dict)
    limits: _OwnLimits = Field(default_factory=_OwnLimits)
    keystore: _OwnKeystore = Field(default_factory=_OwnKeystore)
    networks: _OwnNetworks = Field(default_factory=_OwnNetworks)

    @model_validator(mode="after")
    def _known_names(self) -> _File:
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


def checked(text: str, path: Path) -> Configuration:
    """What a configuration file says.

    Args:
        text: Its content.
        path: Its path: relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: It is no TOML, or has a field that is unknown or wrong; the error names the field.
    """
    try:
        file = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"can't be read: {error}", where=str(path)) from error
    except ValidationError as error:
        raise ConfigurationError(_first_fault(error), where=str(path)) from error
    folder = path.absolute().parent
    models = {
        name: {
            replaced: OwnFile(folder / expanded(one.path, "path"), one.sha256)
            for replaced, one in own.by_file(name).items()
        }
        for name, own in file.models.items()
    }
    return Configuration(models, file.limits.image_limits(), file.keystore.busy_timeout, file.networks.keep)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message
