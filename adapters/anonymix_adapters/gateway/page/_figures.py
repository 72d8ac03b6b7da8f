"""The figures of a gateway, in words: the page and its script show the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from anonymix_adapters.gateway.recent import percentile

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway


def figures(gateway: Gateway) -> dict[str, Any]:
    """What all processes of the gateway do now and have done since the start.

    Returns:
        Texts by name, and `refusals`: a reason, how many since the start, and how many in the last minute.
    """
    recent, since = gateway.metrics.recent.lately(), gateway.metrics.figures()
    threads, places = (recent.processes * each for each in (gateway.limits.threads, gateway.limits.waiting))
    return {
        "faces": _rate(recent.faces / recent.span),
        "requests": _rate(recent.requests / recent.span),
        "p50": _milliseconds(percentile(recent.seconds, 0.5)),
        "p99": _milliseconds(percentile(recent.seconds, 0.99)),
        "working": f"{min(recent.inside, threads)} of {threads}",
        "waiting": f"{max(0, recent.inside - threads)} of {places}",
        "total": f"{since['requests']:,}",
        "answered": f"{since['answered']:,}",
        "refusals": [
            [code, f"{number:,}", f"{recent.refusals[code[:24]]:,}"] for code, number in since["refusals"] if number
        ],
    }


def _rate(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 10 else f"{value:.0f}"


def _milliseconds(seconds: float) -> str:
    return "none yet" if math.isnan(seconds) else f"{seconds * 1000:,.0f} ms"
