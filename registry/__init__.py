"""Settings, specs, the ledger, the score store and MLflow: the only package that talks to the stores."""
