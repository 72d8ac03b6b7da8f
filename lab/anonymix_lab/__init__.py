"""Measuring, training and the demo: what builds and proves the mixer, and never runs in production."""
