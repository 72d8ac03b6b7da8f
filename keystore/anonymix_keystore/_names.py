"""What a subject id or a scope may look like."""

from __future__ import annotations

import unicodedata

from anonymix_keystore._asked import exact
from anonymix_keystore._errors import InvalidSubjectError

MAX_BYTES = 1024
DEFAULT_SCOPE = "default"

# Control, format, surrogate, private-use and unassigned characters, line and paragraph separators:
# none can be seen, so two ids that look the same could be two people.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def checked(name: object, what: str) -> str:
    """Return the name in Unicode normal form C, or refuse it.

    Composed and decomposed spellings are one name. Letters of different scripts that look alike
    stay different names: they get different keys, never each other's.

    Raises:
        InvalidSubjectError: Not a string, empty, over 1,024 bytes of UTF-8, with blanks at an end,
            or with invisible characters.
    """
    if not isinstance(name, str):
        raise InvalidSubjectError(f"a {what} must be a string, not {type(name).__name__}")
    name = exact(name)
    if not name:
        raise InvalidSubjectError(f"a {what} must not be empty")
    if len(name) > MAX_BYTES:
        raise InvalidSubjectError(f"a {what} must not be longer than {MAX_BYTES} bytes of UTF-8")
    if name != name.strip():
        raise InvalidSubjectError(f"a {what} must not begin or end with blanks")
    if name.isascii() and name.isprintable():
        return name
    if any(unicodedata.category(letter) in _UNSEEN for letter in name):
        raise InvalidSubjectError(f"a {what} must not hold control or invisible characters")
    normal = unicodedata.normalize("NFC", name)
    if len(normal.encode()) > MAX_BYTES:
        raise InvalidSubjectError(f"a {what} must not be longer than {MAX_BYTES} bytes of UTF-8")
    return normal
