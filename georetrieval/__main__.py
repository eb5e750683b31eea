"""Run the command as ``python -m georetrieval``."""

from georetrieval.cli import main

main()
