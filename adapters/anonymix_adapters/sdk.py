"""Back ends' own packages: imported when they are needed, in versions that were tested."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, metadata
from types import ModuleType

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from anonymix_adapters.errors import SdkMissingError, SdkVersionError, asked_to_stop, in_words

DISTRIBUTION = "anonymix-plugin"


@dataclass(frozen=True)
class Sdk:
    """A package that an adapter stands in front of.

    Attributes:
        module: What is imported, e.g. "boto3".
        distributions: Names under which it may be installed, e.g. ("boto3",); one is enough.
        extra: The extra of this distribution that brings it, e.g. "rekognition"; "" where it always comes.
        tested: Versions that the adapter was tested with, as a specifier: ">=1.34,<2".
        package: What to install, extra included, where it is another distribution's adapter.
        cure: What to do if it is installed and does not import; by default, install the extra again.
    """

    module: str
    distributions: tuple[str, ...]
    extra: str
    tested: str
    package: str = ""
    cure: str = ""

    @property
    def command(self) -> str:
        """The command that installs it."""
        extra = f"[{self.extra}]" if self.extra else ""
        return f"pip install {self.package or DISTRIBUTION + extra}"

    def installed(self) -> str:
        """The installed version.

        Raises:
            SdkMissingError: None is installed.
        """
        for name in self.distributions:
            try:
                return metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        raise SdkMissingError(f"{self.distributions[0]} is not installed", where=self.module, fix=self.command)

    def check(self) -> str:
        """The installed version, if it was tested.

        Raises:
            SdkMissingError: None is installed.
            SdkVersionError: It is outside the tested range.
        """
        found = self.installed()
        try:
            fits = SpecifierSet(self.tested).contains(Version(found), prereleases=True)
        except InvalidVersion:
            fits = False
        if not fits:
            raise SdkVersionError(
                f"version {found} is installed, and only {self.tested} was tested; where a recogniser takes "
                "its photos may differ, so that nothing is let through",
                where=self.distributions[0],
                fix=f"pip install '{self.distributions[0]}{self.tested}'",
            )
        return found

    def load(self) -> ModuleType:
        """Import the package, after checking its version.

        Whatever its import does instead of working, ending the process included, is an error of ours.

        Raises:
            SdkMissingError: It, or something that it needs, is not installed; or it does not import.
            SdkVersionError: It is outside the tested range.
        """
        self.check()
        try:
            return import_module(self.module)
        except BaseException as error:
            if asked_to_stop(error):
                raise
            ended = isinstance(error, SystemExit)
            raise SdkMissingError(
                f"{self.module} does not import: {in_words(error) if ended else error}",
                where=self.module,
                fix=self.cure or self.command,
            ) from error
