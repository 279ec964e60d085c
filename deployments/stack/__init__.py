"""The stack of one machine: Prefect, MLflow, the worker and the watcher, started, supervised and ended together."""
