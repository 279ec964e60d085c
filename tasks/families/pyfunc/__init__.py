"""MLflow pyfuncs that were fine-tuned elsewhere; they run in their own process, and only if their source is allowed."""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.pyfunc.spec import PyfuncSpec

FAMILY = Family(PyfuncSpec, f"{__name__}.model:Pyfunc")
