"""Sphinx's settings: Markdown pages and the API reference from docstrings; `make docs` builds the site."""

from importlib.metadata import version as installed

project = "Anonymix"
author = "the Anonymix authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
version = release = installed("anonymix-plugin")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"Anonymix {release}"
html_show_sourcelink = False
# Links from pages to files of the repository (examples, model cards) lead out of the site.
suppress_warnings = ["myst.xref_missing", "ref.python"]
