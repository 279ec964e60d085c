"""How it is run: the command line, and what MLflow loads."""
