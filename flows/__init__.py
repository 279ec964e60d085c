"""What happens, in which order: Prefect flows. No arithmetic, no file formats."""
