"""Adapters that put Anonymix in front of a recogniser, one module per back end."""
