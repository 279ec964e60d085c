"""The work, one module a stage: plain functions on frames and arrays that run without Prefect and without a server."""
