"""Prefect flows: what happens, and in which order. No arithmetic, no file formats."""
