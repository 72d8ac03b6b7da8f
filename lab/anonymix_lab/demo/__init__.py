"""`anonymix demo`: the whole story on sample photos, as a page with pictures."""
