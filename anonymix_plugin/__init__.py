"""Anonymix: cancelable faces in front of any face recogniser."""
