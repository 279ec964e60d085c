"""Parts of `python -m benchmarks.aggregator`."""
