"""Measures bevgen and georetrieval beside their peers."""
