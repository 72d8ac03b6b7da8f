"""Everything that can go wrong, as types: what was wrong, where, and what to do about it.

Each error carries an exit code, which the command line returns. The rule behind all of them is
*fail closed*: whoever catches one of these has got no image, and so has nothing to pass on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

from anonymix_plugin.words import clean, shown

_EXTRAS: Final = {
    "dlib": "dlib",
    "h5py": "torch",
    "pillow_heif": "heif",
    "onnx": "torch",
    "torch": "torch",
    "jinja2": "lab",
    "matplotlib": "lab",
    "scipy": "lab",
    "sklearn": "lab",
}


class AnonymixError(Exception):
    """Base of all errors of the plug-in.

    Args:
        what: What was wrong, in one sentence, never containing key material or pixels.
        where: The file, field, subject or model concerned, or "" where there is none.
        fix: What the user can do about it, or "".

    Photos and secrets that a text may quote are taken out of it (`words`). Errors can be pickled and copied,
    without their cause.
    """

    exit_code = 1
    code = "error"  # stable, machine-readable name used in JSON output

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = clean(what), shown(where) if where else "", clean(fix)
        super().__init__(self.what)

    def __reduce__(self) -> tuple[Any, ...]:
        # By what it holds: a subclass may ask its constructor for more than that.
        return _again, (type(self), self.args, self.__dict__)

    @classmethod
    def _made_again(cls, args: tuple[object, ...], content: dict[str, Any]) -> Self:
        error = cls.__new__(cls, *args)
        error.args = args
        error.__dict__.update(content)
        return error

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        cure = f" ({self.fix})" if self.fix else ""
        return f"{place}{self.what}{cure}"


def _again(kind: type[AnonymixError], args: tuple[object, ...], content: dict[str, Any]) -> AnonymixError:
    return kind._made_again(args, content)


class UsageError(AnonymixError):
    """The call itself does not make sense: contradictory or missing arguments."""

    exit_code = 2
    code = "usage"


class MissingPackageError(UsageError):
    """A package that this option or command needs is not installed."""

    code = "missing_package"

    @classmethod
    def of(cls, error: ImportError, extra: str = "") -> MissingPackageError | None:
        """Describe a failed import, or return None if the package is part of Anonymix itself.

        Args:
            error: The error.
            extra: The extra that brings all that is imported there, where that is known.
        """
        name = (error.name or "").partition(".")[0]
        if name.startswith("anonymix"):
            return None
        fix = "install it with pip"
        extra = extra or _EXTRAS.get(name, "")
        if extra:
            fix = f'pip install "anonymix-plugin[{extra}]"'
        return cls("a package that this needs is not installed", where=name, fix=fix)


@contextmanager
def naming_extras(extra: str = "") -> Iterator[None]:
    """Turn a failed import in the block into a `MissingPackageError` that names the extra.

    Args:
        extra: The extra that brings all that is imported there; by default, what is known of the package.

    Raises:
        MissingPackageError: A package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = MissingPackageError.of(error, extra)
        if missing is None:
            raise
        raise missing from error


class PhotoError(AnonymixError):
    """The photo can't be used. Base of the errors about images and faces."""

    exit_code = 3
    code = "photo"


class UnreadableImageError(PhotoError):
    """Not an image, truncated, or of a kind that is not supported."""

    code = "unreadable_image"


class ImageTooLargeError(PhotoError):
    """More bytes or pixels than the limits allow (a decompression bomb, say)."""

    code = "image_too_large"


class ImageTooSmallError(PhotoError):
    """Fewer pixels than a face needs."""

    code = "image_too_small"


class BadArrayError(PhotoError):
    """An array of the wrong shape or dtype, or with NaN or out-of-range values."""

    code = "bad_array"


class AlreadyProtectedError(PhotoError):
    """The image is marked as a cancelable face; it is not mixed twice."""

    code = "already_protected"


class NoFaceError(PhotoError):
    """No face was found."""

    code = "no_face"


class SeveralFacesError(PhotoError):
    """More than one face where the policy asks for exactly one."""

    code = "several_faces"


class DifferentPeopleError(PhotoError):
    """Photos that are to be one person's do not look like one person."""

    code = "different_people"


class LowQualityError(PhotoError):
    """The face is too poor to be told from others: blurred, dark, covered, turned away, or no face."""

    code = "low_quality"


class KeyUnavailableError(AnonymixError):
    """No key can be had: unknown subject, revoked key, locked or missing keystore."""

    exit_code = 4
    code = "key_unavailable"


class ModelError(AnonymixError):
    """Base of the errors about model weights."""

    exit_code = 5
    code = "model"


class MissingModelError(ModelError):
    """Weights that are needed are not on this machine."""

    code = "missing_model"


class DamagedModelError(ModelError):
    """Weights on this machine do not have the hash that the registry names."""

    code = "damaged_model"


class CheckpointError(ModelError):
    """A checkpoint of the user's can't be read: damaged, hostile, or of a kind that is not supported."""

    code = "checkpoint"


class DownloadError(ModelError):
    """Weights could not be fetched."""

    code = "download"


class OutputError(AnonymixError):
    """The result could not be written; nothing half written is left behind."""

    exit_code = 6
    code = "output"


class ConfigurationError(AnonymixError):
    """The configuration file is not valid."""

    exit_code = 2
    code = "configuration"
