"""Report a tournament so that a reviewer can decide: one summary, shown as a page, as figures and as tables."""
