"""Embeddings, exact ranks, and the figures made of them."""
