"""Sphinx: `make docs` builds docs/_build/html, and fails on any warning."""

import bevgen

project = "bevgen"
author = "the bevgen developers"
copyright = "the bevgen developers, Apache-2.0"  # noqa: A001
version = release = bevgen.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_click",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

default_role = "py:obj"
smartquotes = False  # would turn the -- of options into dashes
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more: shapes, units, ranges
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"bevgen {release}"
