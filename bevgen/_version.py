"""The one home of the version: the package's metadata are built from it."""

__version__ = "0.1.0"
