"""The report: one page, the same as JSON, and tables of scores."""
