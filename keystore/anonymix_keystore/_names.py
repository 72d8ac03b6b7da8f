"""What a subject id or a scope may look like."""

from __future__ import annotations

import unicodedata

from anonymix_keystore._asked import exact
from anonymix_keystore._errors import InvalidSubjectError

MAX_BYTES = 1024
DEFAULT_SCOPE = "default"
_FIX = "write it as it is seen: 1 to 1,024 bytes of UTF-8, no blanks around it, nothing in it that can't be seen"

# Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, Unicode 16), as far as the categories
# below don't hold it already, and letters and signs that look like a blank.
_IGNORABLE = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0000, 0xE0FFF)),
    *((0x2800, 0x2800), (0x1D159, 0x1D159), (0x16FE4, 0x16FE4)),
)
# Control, format, surrogate, private-use and unassigned characters, line and paragraph separators:
# none can be seen, so two ids that look the same could be two people.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def check_visible(name: str, what: str) -> None:
    """See that a new name is what it looks like; names that are in a store already are taken as they are.

    Raises:
        InvalidSubjectError: It holds a character that can't be seen, or blanks that look like another's: two
            together, or any but the plain one.
    """
    if any(_ignored(letter) for letter in name):
        raise InvalidSubjectError(f"a {what} must not hold invisible characters", fix=_FIX)
    if "  " in name or any(letter != " " and unicodedata.category(letter) == "Zs" for letter in name):
        raise InvalidSubjectError(
            f"a {what} must not hold two blanks together, or others than the plain one",
            fix="write it with single plain blanks",
        )


def _ignored(letter: str) -> bool:
    return not letter.isascii() and any(first <= ord(letter) <= last for first, last in _IGNORABLE)


def checked(name: object, what: str) -> str:
    """Return the name in Unicode normal form C, or refuse it.

    Composed and decomposed spellings are one name. Letters of different scripts that look alike
    stay different names: they get different keys, never each other's.

    Raises:
        InvalidSubjectError: Not a string, empty, over 1,024 bytes of UTF-8, with blanks at an end,
            or with invisible characters.
    """
    if not isinstance(name, str):
        raise InvalidSubjectError(f"a {what} must be a string, not {type(name).__name__}", fix=_FIX)
    name = exact(name)
    if not name:
        raise InvalidSubjectError(f"a {what} must not be empty", fix=_FIX)
    if len(name) > MAX_BYTES:
        raise InvalidSubjectError(f"a {what} must not be longer than {MAX_BYTES} bytes of UTF-8", fix=_FIX)
    if name != name.strip():
        raise InvalidSubjectError(f"a {what} must not begin or end with blanks", fix=_FIX)
    if name.isascii() and name.isprintable():
        return name
    if any(unicodedata.category(letter) in _UNSEEN for letter in name):
        raise InvalidSubjectError(f"a {what} must not hold control or invisible characters", fix=_FIX)
    normal = unicodedata.normalize("NFC", name)
    if len(normal.encode()) > MAX_BYTES:
        raise InvalidSubjectError(f"a {what} must not be longer than {MAX_BYTES} bytes of UTF-8", fix=_FIX)
    return normal
