"""The tokenizer of a checkpoint, opened from a folder that holds its files and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.checkpoint_files import plain_words
from esci_tournament.tasks.families.japanese import japanese_settings, open_japanese


def tokenizer_in(place: Path, checkpoint: str, kind: Any = AutoTokenizer) -> PreTrainedTokenizerFast:
    """Return the tokenizer whose files are in a folder that holds nothing else that a library would follow.

    Args:
        place: as :func:`esci_tournament.tasks.families.checkpoint_files.vetted` makes it.
        checkpoint: as messages name it.
        kind: transformers' class that opens it; default: the one that its config names.

    Returns:
        A fast tokenizer that has a padding token.

    Raises:
        SpecError: as :func:`open_tokenizer`.
    """
    try:
        with quiet():
            if kind is AutoTokenizer and (settings := japanese_settings(place)) is not None:
                return open_japanese(place, checkpoint, settings)
            tokenizer = kind.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except SpecError:
        raise
    except Exception as error:  # the library raises whatever a broken file makes it raise
        raise SpecError(f"checkpoint {checkpoint}: its tokenizer cannot be read ({plain_words(error)})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer, {type(tokenizer).__name__}, is written in Python and has no fast "
            "form (tokenizer.json), which is what reads the texts here; name a checkpoint that has one"
        )
    if tokenizer.pad_token_id is None:
        # Padding is masked, so that any token will do
        spare = (tokenizer.eos_token, tokenizer.unk_token, tokenizer.sep_token)
        tokenizer.pad_token = next((token for token in spare if token is not None), None)
    if tokenizer.pad_token_id is None:
        raise SpecError(
            f"checkpoint {checkpoint}: its tokenizer has no token for padding, and no end-of-text, unknown or "
            'separator token in its place; add one and save it: tokenizer.add_special_tokens({"pad_token": "[PAD]"})'
        )
    return tokenizer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the transformers library from printing reports and progress bars inside the context.

    Yields:
        Nothing. The log level and the progress bars are restored afterwards.
    """
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
