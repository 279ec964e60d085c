"""The servers of `tournament up` on one machine: Prefect, MLflow, the worker and the watcher."""
