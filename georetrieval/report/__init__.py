"""One HTML page about a run: how it learnt, how often it finds a place, and how it fails.

Imports run one way: charts, gallery <- training, results <- page.
"""

from georetrieval.report.page import write_report

__all__ = ["write_report"]
