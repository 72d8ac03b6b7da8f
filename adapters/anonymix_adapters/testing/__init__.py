"""For tests of adapters: the conformance suite, and what rehearsals of services have in common."""
