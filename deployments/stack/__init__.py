"""The stack of one machine: Prefect, MLflow, the worker and the watcher, started, watched over and ended together."""
