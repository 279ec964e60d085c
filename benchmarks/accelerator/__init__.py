"""Parts of the GPU benchmark: what is measured, one module for each question."""
