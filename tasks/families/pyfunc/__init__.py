"""MLflow pyfuncs that were fine-tuned elsewhere: run apart, and only when an operator allows their source."""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec

FAMILY = Family(PyfuncSpec, f"{__name__}.model:Pyfunc")
