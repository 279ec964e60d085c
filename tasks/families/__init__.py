"""Families of models: their common protocol and loading, and one folder for each family that comes with the product."""
