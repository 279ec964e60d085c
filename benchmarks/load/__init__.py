"""Load for the scorer: a small generator for the benchmark, and a locust file for manual tests of any length."""
