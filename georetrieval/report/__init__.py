"""One HTML page about a run: how it learnt, how often it finds a place, and how it fails.

Values are computed here, and templates write them down. Imports run one way: charts, plan, gallery
<- training, results <- overview <- page.
"""

from georetrieval.report.page import write_report

__all__ = ["write_report"]
