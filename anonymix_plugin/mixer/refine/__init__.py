"""The refine method: optimisation on top of a mixed code. All of the mixer that needs torch is here."""
