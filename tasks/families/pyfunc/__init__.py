"""MLflow pyfuncs that were fine-tuned elsewhere: run apart, and only when an operator allows their source."""
