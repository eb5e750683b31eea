"""Sphinx: `make docs` builds docs/_build/html, and fails on any warning.

The pages need no network: formulas are MathML, which browsers draw themselves.
"""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import bevgen

project = "bevgen"
author = "the bevgen developers"
copyright = "the bevgen developers, Apache-2.0"  # noqa: A001
version = release = bevgen.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
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
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"


# A minus sign after one of these is a sign, and not an operation: it stands close.
SIGN = re.compile(r"(>(?:&#x00028;|&#x0003D;|&#x0002C;|&#x0003C;)</mo>)<mo>(?=&#x02212;)")


def mathml(formula: str, display: str) -> str:
    """Turn a formula of TeX into MathML."""
    return SIGN.sub(r'\1<mo form="prefix">', convert(formula, display=display))


def draw_in_line(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def draw_apart(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, which are aligned at their ampersands."""
    formula = rf"\begin{{split}}{node.astext()}\end{{split}}"
    translator.body.append(f'<div class="math">{mathml(formula, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Let formulas be drawn by the browser."""
    app.add_html_math_renderer("mathml", (draw_in_line, None), (draw_apart, None))
