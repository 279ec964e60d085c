"""Candidates of a tournament: who may enter, how they are trained, scored and profiled, and what they have seen."""
