"""Queries joined to references, and batches of them."""
