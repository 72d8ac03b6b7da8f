from __future__ import annotations


class Clock:
    """A clock that the test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, *, seconds: float = 0, days: float = 0) -> None:
        self.now += seconds + days * 86_400
