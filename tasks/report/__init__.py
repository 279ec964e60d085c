"""The report a reviewer can decide from: one summary, shown as a page, as figures and as a table in the terminal."""
