"""One subject's damage hides nobody else: what goes through many leaves a few out, and names them at its end."""

from __future__ import annotations

from anonymix_keystore._errors import DamagedError

NAMELESS = "somebody whose name can't be read"
_MOST_TOLD = 20


def words(subject: str, scope: str) -> str:
    """Words for a subject, or "" for the gallery, in a scope."""
    return f"subject {subject!r} in scope {scope!r}" if subject else f"the gallery in scope {scope!r}"


class LeftOut:
    """Whom a listing had to leave out."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._count = 0

    def add(self, name: str) -> None:
        """One more; of somebody who is known by name, further rows are not counted."""
        if name in self._names and name != NAMELESS:
            return
        self._count += 1
        if len(self._names) < _MOST_TOLD:
            self._names[name] = None

    def tell(self, what: str, where: str, fix: str) -> None:
        """Raise an error that names them, if there are any.

        Args:
            what: What is wrong, with "{}" in the place of their names.
            where: The file.
            fix: What to do.

        Raises:
            DamagedError: Somebody was left out.
        """
        if self._count:
            more = "" if self._count == len(self._names) else f" and {self._count - len(self._names)} more"
            raise DamagedError(what.format(", ".join(self._names) + more), where=where, fix=fix)
