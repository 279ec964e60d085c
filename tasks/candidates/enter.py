"""Check, before any time is spent, that a candidate can be what its spec says."""

from __future__ import annotations

from registry.specs import CandidateSpec, GraphNetworkSpec, LanguageModelSpec


def check_spec(spec: CandidateSpec) -> None:
    """Check what the spec points to: a checkpoint folder must be one, with safetensors weights.

    Raises:
        SpecError: if it is not; the message says what is missing.
    """
    if isinstance(spec, LanguageModelSpec) and spec.checkpoint:
        from tasks.candidates.checkpoint import check_checkpoint

        check_checkpoint(spec.checkpoint)
    if isinstance(spec, GraphNetworkSpec) and spec.recipe.encoder != "lsa":
        from tasks.candidates.checkpoint import check_checkpoint

        check_checkpoint(spec.recipe.encoder)
