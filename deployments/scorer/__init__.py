"""The scorer: the champion behind HTTP, from a page of products to labels in milliseconds."""
