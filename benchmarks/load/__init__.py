"""Load for the scorer: a small generator for the benchmark, and a locust file for a long test by hand."""
