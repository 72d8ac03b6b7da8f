"""The figures of a gateway, in words: the page and its script show the same."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from anonymix_adapters.gateway.recent import Recent, percentile

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway


def figures(gateway: Gateway, faces: Recent[int] | None) -> dict[str, Any]:
    """What the gateway does now and has done since the start.

    Args:
        gateway: Its queue and its figures.
        faces: Faces as they are made; None where nobody counts them.

    Returns:
        Texts by name, and `refusals`: pairs of a reason and how many since the start.
    """
    recent = gateway.metrics.recent
    requests = recent.values()
    spent = [seconds for seconds, problem in requests if not problem]
    inside, limits = gateway.workers.inside, gateway.limits
    since = gateway.metrics.figures()
    refused = Counter(problem for _, problem in requests if problem)
    return {
        "faces": "not counted" if faces is None else _rate(sum(faces.values()) / faces.span),
        "requests": _rate(len(requests) / recent.span),
        "p50": _milliseconds(percentile(spent, 0.5)),
        "p99": _milliseconds(percentile(spent, 0.99)),
        "working": f"{min(inside, limits.threads)} of {limits.threads}",
        "waiting": f"{max(0, inside - limits.threads)} of {limits.waiting}",
        "total": f"{since['requests']:,}",
        "answered": f"{since['answered']:,}",
        "refusals": [[code, f"{number:,}", f"{refused[code]:,}"] for code, number in since["refusals"] if number],
    }


def _rate(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 10 else f"{value:.0f}"


def _milliseconds(seconds: float) -> str:
    return "none yet" if math.isnan(seconds) else f"{seconds * 1000:,.0f} ms"
