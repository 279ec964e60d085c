"""Language models: Hugging Face encoders over query and product text, fine-tuned or trained from scratch."""

from esci_tournament.registry.plugins import Family
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec

FAMILY = Family(LanguageModelSpec, f"{__name__}.model:LanguageModel")
