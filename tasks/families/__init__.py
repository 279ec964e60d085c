"""Families of models: what all of them have in common, and a room for each that comes with the product."""
