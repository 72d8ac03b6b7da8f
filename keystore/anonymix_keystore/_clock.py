"""What is done about a clock that was wrong: nothing is erased by it, and it can be set right again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from anonymix_keystore._errors import ClockError
from anonymix_keystore._header import Header

DAY = 86_400
TOLERANCE = 3600  # seconds that the clock may stand behind the last change
FAR = 180 * DAY  # seconds after the last change from which on a clock is not believed without a word
SETTLED = 30 * DAY  # seconds that a clock has to run on after such a leap until it is believed
LAST = 253_402_300_799  # the end of the year 9999
_ACCEPT = "open with accept_clock=True (on the command line: --accept-clock)"


def read(clock: Callable[[], float], where: str) -> int:
    """The clock's time in Unix seconds.

    Raises:
        ClockError: It gives none that a calendar knows.
    """
    try:
        seconds = int(clock())
    except (TypeError, ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= LAST:
        raise ClockError("the clock gives no time between 1970 and 9999", where=where, fix="set the clock")
    return seconds


def check_not_behind(system: int, header: Header, where: str) -> None:
    """See that the clock does not stand well before the last change.

    Raises:
        ClockError: It does.
    """
    if system < header.clock - TOLERANCE:
        raise ClockError(
            f"the clock says {_date(system)}, but the last change was made at {_date(header.clock)}",
            where=where,
            fix=f"set the clock; if it is right now and was wrong then, {_ACCEPT}",
        )


def check_believed(now: int, header: Header, where: str) -> None:
    """See that nothing speaks against the clock, before something is erased by date.

    Raises:
        ClockError: It stands far after the last change, or leapt that far a short while ago.
    """
    if now - header.clock > FAR:
        why = f"the last change was made at {_date(header.clock)}"
    elif header.leap and now - header.leap < SETTLED:
        why = f"it leapt there by more than {FAR // DAY} days at a change a short while ago"
    else:
        return
    raise ClockError(
        f"nothing is done by date while the clock is in doubt: it says {_date(now)}, and {why}",
        where=where,
        fix=f"set the clock; if it is right, {_ACCEPT}",
    )


def leap_after(now: int, header: Header, *, accepted: bool) -> int:
    """When the clock last leapt, as the header keeps it after a change; 0 where it is believed."""
    if accepted or not header.clock:
        return 0
    if now - header.clock > FAR:
        return now
    return header.leap if now - header.leap < SETTLED else 0


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
