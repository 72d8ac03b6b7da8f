"""Measuring what the mixer keeps and what it protects."""
