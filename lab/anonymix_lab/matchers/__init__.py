"""From photos to embeddings, with a cache on disk, and from embeddings to scores."""

from anonymix_lab.matchers._extract import Extractor, Request, Table
from anonymix_lab.matchers._judges import (
    TRAIT_NAMES,
    TRAITS,
    Judge,
    Panel,
    RecogniserJudge,
    load_judges,
)
from anonymix_lab.matchers._store import EmbeddingStore, Entry

__all__ = [
    "TRAITS",
    "TRAIT_NAMES",
    "EmbeddingStore",
    "Entry",
    "Extractor",
    "Judge",
    "Panel",
    "RecogniserJudge",
    "Request",
    "Table",
    "load_judges",
]
