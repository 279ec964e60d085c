"""Names of the checks of a verdict that are looked up by name: by the seal, the looks and the report."""

GAIN = "gain"  # on the primary metric
CHEAPER = "cheaper"
BUDGET = "budget"
SINGLE = "the best model alone"
