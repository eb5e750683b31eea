"""Runs the command line as `python -m bevgen`."""

from bevgen.cli import main

main()
