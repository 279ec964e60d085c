"""Ensembles: member scores, the aggregator over them, selection within a budget, attribution, and the judge."""
