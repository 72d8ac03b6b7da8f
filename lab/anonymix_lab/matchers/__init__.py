"""From photos to embeddings, with a cache on disk, and from embeddings to scores."""

from anonymix_lab.matchers._extract import Extractor, Request, Table
from anonymix_lab.matchers._matchers import (
    CODE,
    TRAIT_NAMES,
    TRAITS,
    CodeMatcher,
    Matcher,
    Panel,
    RecogniserMatcher,
    load_matchers,
)
from anonymix_lab.matchers._store import EmbeddingStore, Entry

__all__ = [
    "CODE",
    "TRAITS",
    "TRAIT_NAMES",
    "CodeMatcher",
    "EmbeddingStore",
    "Entry",
    "Extractor",
    "Matcher",
    "Panel",
    "RecogniserMatcher",
    "Request",
    "Table",
    "load_matchers",
]
