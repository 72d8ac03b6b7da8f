"""From photos to embeddings, with a cache on disk, and from embeddings to scores."""

from anonymix_plugin.evaluation.scores._extract import Extractor, Request, Table
from anonymix_plugin.evaluation.scores._judges import FaceChoice, Judge, Panel, RecogniserJudge, load_judges
from anonymix_plugin.evaluation.scores._store import EmbeddingStore, Entry

__all__ = [
    "EmbeddingStore",
    "Entry",
    "Extractor",
    "FaceChoice",
    "Judge",
    "Panel",
    "RecogniserJudge",
    "Request",
    "Table",
    "load_judges",
]
