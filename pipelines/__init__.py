"""Scripts for a clone, run as `python -m pipelines.NAME`: straight lists of public calls."""
