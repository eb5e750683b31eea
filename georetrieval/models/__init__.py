"""Encoders and branches, and their weights on disk."""
