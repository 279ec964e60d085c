"""How the product is run: the command line, the Python functions, the servers, the scorer, and what MLflow loads."""
