"""Measures bevgen and georetrieval beside their peers: `python -m tests.benchmarks --help`."""
