"""Studies: one question each, answered with figures."""
