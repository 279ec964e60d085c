"""Data: load, validate, split, synthesize."""
