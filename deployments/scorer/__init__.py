"""The scorer: an HTTP server that labels pages of products with the champion."""
