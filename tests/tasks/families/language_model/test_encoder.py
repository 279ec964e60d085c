"""The encoder of a language model: an existing checkpoint that is checked before training, or a new one."""

import pytest
import torch

from esci_tournament.registry.errors import SpecError
from esci_tournament.tasks.families.language_model.encoder import check_length, check_origin, new_encoder
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec


def test_heads_must_divide_the_hidden_size():
    with pytest.raises(SpecError, match="no multiple of heads 3"):
        check_origin(LanguageModelSpec(name="x", architecture="bert", recipe={"hidden_size": 64, "heads": 3}))


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta", "albert", "mpnet", "deberta-v2"])
def test_every_architecture_starts_from_nothing_and_reads_its_full_length(name):
    made = LanguageModelSpec(
        name="x", architecture=name, recipe={"hidden_size": 16, "layers": 2, "heads": 2, "max_length": 24}
    )
    encoder = new_encoder(made, 300, 0).eval()
    tokens = torch.arange(10, 34).unsqueeze(0)
    states = encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    assert states.shape == (1, 24, 16)
    assert torch.isfinite(states).all()


@pytest.mark.parametrize(("length", "positions"), [(64, 64), (4096, None)])
def test_a_length_is_held_against_the_positions_that_there_are(length, positions):
    made = LanguageModelSpec(name="x", checkpoint="group/model", recipe={"max_length": length})
    check_length(made, positions)
    with pytest.raises(SpecError, match=f"max_length is {length}; checkpoint group/model reads {length - 1} tokens"):
        check_length(made, length - 1)
