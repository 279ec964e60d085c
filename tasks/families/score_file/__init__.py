"""Scores of models that cannot be shared."""
