"""What the owner of a candidate tries with a recipe or a checkpoint, and what comes of it when it is registered.

The ids in the docstrings are rows of the table of what was tried.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel

from esci_tournament.flows.watch import Watch
from esci_tournament.registry.settings import read_settings
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.families import checkpoint_files
from esci_tournament.tasks.families.language_model.tokenizer import train_tokenizer, wrap
from tests.flows.conftest import plain, state, sweep

TEXT = {"family": "language_model", "architecture": "bert"}
GRAPH = {"family": "graph_network", "architecture": "gcn"}


def refusal(workspace: Workspace, tag: str) -> str:
    """Register a candidate with this tag, let the watcher see it, and return why it was refused."""
    candidate = plain(workspace, "bad", tag)
    sweep(Watch(workspace))
    told, why = state(workspace, candidate)
    assert told == "refused"
    return why


@pytest.mark.parametrize(
    ("tag", "bound"),
    [
        (TEXT | {"recipe": {"epochs": 10**9}}, "recipe.epochs: .* from 1 to 1,000"),
        (TEXT | {"recipe": {"hidden_size": 10**6, "layers": 10**6}}, "recipe.hidden_size: .* to 16,384"),
        (TEXT | {"recipe": {"hidden_size": 16_384, "layers": 512}}, "candidate_parameters allows 3,000,000,000"),
        (TEXT | {"recipe": {"vocabulary": 10**12}}, "recipe.vocabulary: .* to 2,000,000"),
        (TEXT | {"recipe": {"learning_rate": float("inf")}}, "recipe.learning_rate: .* finite"),
        (TEXT | {"recipe": {"weight_decay": float("nan")}}, "recipe.weight_decay: .* finite"),
        (TEXT | {"recipe": {"epochs": True}}, "epochs: .* and is no boolean"),
        (TEXT | {"recipe": {"field_tokens": {"title": True}}}, "field_tokens: .* and is no boolean"),
        (TEXT | {"recipe": {"batch_size": 2**200}}, "an integer of 201 bits"),
        (TEXT | {"recipe": {"fields": [0] * 20_000}}, "20,000 entries; 10,000 are allowed"),
        (TEXT | {"seed": 2**63}, "an integer of 64 bits"),
        (TEXT | {"seed": 2**40}, "seed: .* to 4,294,967,295"),
        (TEXT | {"description": "x" * 50_000}, "a text of 50,000 characters"),
        (GRAPH | {"recipe": {"fanout": 10**9}}, "recipe.fanout: .* to 1,024"),
        (GRAPH | {"recipe": {"hidden_size": 8192, "text_dimensions": 8192, "layers": 3, "epochs": 10**5}}, "epochs"),
        (GRAPH | {"recipe": {"heads": 10**9}}, "recipe.heads"),
    ],
)
def test_a_recipe_out_of_bounds_is_refused_with_the_bound(
    workspace: Workspace, tag: dict[str, Any], bound: str
) -> None:
    """R2.8, R2.9."""
    assert re.search(bound, refusal(workspace, json.dumps(tag)))


def test_no_candidate_has_unlimited_time_and_memory_unless_the_operator_says_so() -> None:
    """R2.8: one candidate cannot block the queue for ever."""
    settings = read_settings()
    assert 3600 <= (settings.candidate_time or 0) <= 7 * 86_400
    assert (settings.candidate_memory or 0) > 0
    free = read_settings(candidate_timeout_s=0, candidate_memory_gib=0)
    assert free.candidate_time is None
    assert free.candidate_memory is None
    # What a tournament is known by is the setting, which is the same on every machine and as it was before
    assert settings.model_dump(mode="json")["candidate_memory_gib"] is None


def test_which_paths_the_worker_has_is_not_told(workspace: Workspace, tmp_path: Path) -> None:
    """R2.7."""
    (tmp_path / "secret").write_text("x")
    told = set()
    for number, place in enumerate(["/etc", "/etc/passwd", "/etc/ssl", "/srv/absent", str(tmp_path / "secret")]):
        tags = [{"family": "language_model", "checkpoint": place}, GRAPH | {"recipe": {"encoder": place}}]
        for family, tag in enumerate(tags):
            candidate = plain(workspace, f"c{number}-{family}", json.dumps(tag))
            sweep(Watch(workspace))
            told.add(state(workspace, candidate)[1].replace(place, "PATH"))
    assert len(told) == 1


def test_what_a_complaint_quotes_is_no_link_and_no_mention(workspace: Workspace) -> None:
    """R2.10."""
    key = "<!channel> <https://evil.example|Approve here> [Approve](https://evil.example) @everyone"
    values = [TEXT | {key: 1}, TEXT | {"recipe": {key: 1}}, {"family": key}, TEXT | {"architecture": key}]
    values.append({"family": "language_model", "checkpoint": key})
    for number, tag in enumerate(values):
        candidate = plain(workspace, f"m{number}", json.dumps(tag))
        sweep(Watch(workspace))
        why = state(workspace, candidate)[1]
        assert why
        for mark in ("<", ">", "://evil", "](", " @"):
            assert mark not in why, why


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint in several files."""
    place = tmp_path / "checkpoint"
    tokenizer = wrap(train_tokenizer(["red mug", "blue kettle"], 300))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(place, max_shard_size="8KB")
    tokenizer.save_pretrained(place)
    return place


def pickled_shard(folder: Path) -> None:
    """F5.3."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(list(index["weight_map"])[:1], "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def endless_pattern(folder: Path) -> None:
    """F5.6, S6."""
    content = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(content | {"pre_tokenizer": split}))


def declared_layers(folder: Path) -> None:
    """F5.5."""
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 2000}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(pickled_shard, "pytorch_model.bin"), (endless_pattern, "take forever"), (declared_layers, "2,000 layers")],
)
def test_a_checkpoint_is_refused_at_entry_and_looked_at_in_another_process(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, words: str
) -> None:
    """F5.3, F5.5, F5.6: nothing of it is parsed by the process that watches."""
    spoil(folder)
    monkeypatch.setattr(checkpoint_files, "read_json", None)  # of this process
    assert words in refusal(workspace, json.dumps({"family": "language_model", "checkpoint": str(folder)}))
