"""The same champion behind other model servers, for `benchmarks.serving_peers`; each module is a server of its own."""
