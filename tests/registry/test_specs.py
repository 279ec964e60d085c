import contextlib
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from esci_tournament.registry.errors import SpecError
from esci_tournament.registry.specs import NamedSpec, parse_spec, read_specs
from esci_tournament.tasks.families.graph_network.spec import GraphNetworkSpec
from esci_tournament.tasks.families.language_model.spec import LanguageModelRecipe, LanguageModelSpec

# What MLflow takes for the name of a registered model, less what no line of text can show
names = st.text(
    st.characters(exclude_characters="/:'", exclude_categories=("C", "Z")), min_size=1, max_size=255
).filter(lambda name: name not in (".", ".."))
TWO = """
[[candidate]]
name = "small-bert"
family = "language_model"
architecture = "bert"
recipe = { epochs = 2, fields = ["title"] }

[[candidate]]
name = "clicks-gcn"
family = "graph_network"
architecture = "gcn"
relation = "clicks"
"""


@pytest.fixture
def candidates_file(tmp_path):
    def write(content):
        path = tmp_path / "candidates.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


@given(names, st.integers(1, 9), st.none() | st.integers(0, 9))
def test_a_spec_survives_json(name, epochs, seed):
    spec = LanguageModelSpec(name=name, architecture="bert", seed=seed, recipe=LanguageModelRecipe(epochs=epochs))
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_the_digest_follows_what_is_learnt_and_not_how_it_is_called():
    spec = GraphNetworkSpec(name="a", architecture="gcn")
    assert spec.digest() == GraphNetworkSpec(name="b", description="words", architecture="gcn").digest()
    assert spec.digest() != GraphNetworkSpec(name="a", architecture="gatv2").digest()
    assert spec.digest() != GraphNetworkSpec(name="a", architecture="gcn", seed=1).digest()


def test_a_spec_of_one_relation_keeps_the_digest_it_always_had():
    """Frozen: candidates that were registered are recognised by it."""
    spec = GraphNetworkSpec(name="a", architecture="gcn", relation="clicks")
    assert spec.digest() == "4ea309aa1d62c0aeb70f35c1e3abacd954eeee4fc53cd77b28ee1db197c3ce2a"


def test_the_order_of_several_relations_means_nothing():
    one, other = (
        parse_spec({"family": "graph_network", "name": "a", "architecture": "rgcn", "relation": names})
        for names in (["purchases", "clicks"], ["clicks", "purchases"])
    )
    assert one.relations == ("clicks", "purchases")
    assert one.digest() == other.digest()
    assert parse_spec(one.model_dump(mode="json")) == one


def test_a_list_of_one_relation_is_that_relation():
    alone, listed = (GraphNetworkSpec(name="a", architecture="hgt", relation=one) for one in ("adds", ("adds",)))
    assert alone == listed
    assert alone.digest() == listed.digest()


def test_specs_are_read_in_order(candidates_file):
    small, clicks = read_specs(candidates_file(TWO))
    assert read_specs(str(candidates_file(TWO))) == [small, clicks]
    assert (small.name, small.recipe.epochs, small.recipe.fields) == ("small-bert", 2, ("title",))
    assert (clicks.name, clicks.relation) == ("clicks-gcn", "clicks")


def test_a_relative_checkpoint_folder_starts_at_the_file(candidates_file, tmp_path):
    (tmp_path / "minilm").mkdir()
    path = candidates_file('[[candidate]]\nname = "m"\nfamily = "language_model"\ncheckpoint = "minilm"\n')
    assert read_specs(path)[0].checkpoint == str(tmp_path / "minilm")


def test_a_hub_id_stays_as_it_is(candidates_file):
    path = candidates_file('[[candidate]]\nname = "m"\nfamily = "language_model"\ncheckpoint = "group/model"\n')
    assert read_specs(path)[0].checkpoint == "group/model"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"family": "language_model", "name": "a", "architecture": "bert", "colour": 1}, "unknown key 'colour'"),
        (
            {"family": "language_model", "name": "a", "architecture": "bert", "recipe": {"epoch": 1}},
            r"unknown key 'recipe\.epoch'",
        ),
        ({"family": "magic", "name": "a"}, "family is 'magic'"),
        ({"name": "a"}, "family is None"),
        ({"family": "language_model", "name": "a"}, "either a checkpoint"),
        ({"family": "language_model", "name": "a", "architecture": "bert", "checkpoint": "x"}, "either a checkpoint"),
        ({"family": "graph_network", "name": "team/bert", "architecture": "gcn"}, "name: .*'team/bert'"),
        ({"family": "graph_network", "name": "a\nb", "architecture": "gcn"}, "name: .*one line"),
        ({"family": "graph_network", "name": "..", "architecture": "gcn"}, "name: "),
        ({"family": "graph_network", "name": " ", "architecture": "gcn"}, "name: .*not empty"),
        ({"family": "graph_network", "name": "x" * 256, "architecture": "gcn"}, "name: "),
        ({"family": "graph_network", "name": "a", "architecture": "gcn", "recipe": {"layers": 9}}, "layers.*got 9"),
        ({"family": "graph_network", "name": "a", "architecture": "gcn", "relation": "kisses"}, "relation: .*'kisses'"),
        ({"family": "graph_network", "name": "a", "architecture": "rgcn", "relation": []}, "at least one relation"),
        ({"family": "graph_network", "name": "a", "architecture": "hgt", "relation": ["adds", "adds"]}, "twice"),
        ({"family": "graph_network", "name": "a", "architecture": "gcn", "relation": ["adds", "all"]}, "one relation"),
    ],
)
def test_a_wrong_spec_is_refused_with_key_and_value(content, complaint):
    with pytest.raises(SpecError, match=complaint):
        parse_spec(content)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", r"no \[\[candidate\]\] table"),
        ("candidate = []", r"no \[\[candidate\]\] table"),
        ("candidate = 3", r"no \[\[candidate\]\] table"),
        ("x = 1\n" + TWO, "unknown key 'x'"),
        ("[[candidate", "is no TOML"),
        (TWO + TWO, "the name 'clicks-gcn' stands 2 times"),
        (TWO.replace('"bert"', '"brt"'), r"candidate 1 \(small-bert\)"),
    ],
)
def test_a_wrong_candidates_file_is_named(candidates_file, content, complaint):
    with pytest.raises(SpecError, match=complaint) as caught:
        read_specs(candidates_file(content))
    assert "candidates.toml" in str(caught.value)


def test_a_missing_candidates_file_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"none\.toml: No such file"):
        read_specs(tmp_path / "none.toml")


def test_a_recipe_that_is_no_table_is_refused(candidates_file):
    path = candidates_file('[[candidate]]\nname = "m"\nfamily = "graph_network"\narchitecture = "gcn"\nrecipe = 3\n')
    with pytest.raises(SpecError, match="recipe"):
        read_specs(path)


def test_a_candidate_that_is_no_table_is_refused(candidates_file):
    with pytest.raises(SpecError, match="candidate"):
        read_specs(candidates_file("candidate = [3]"))


class OthersSpec(NamedSpec):
    """A plug-in's spec, without bounds of its own."""

    family: Literal["others"] = "others"
    rate: float = 1.0
    sizes: dict[str, int] = Field(default_factory=dict)
    flag: bool | None = None
    either: int | bool = 1


@pytest.mark.parametrize(
    "wrong",
    [{"rate": math.inf}, {"rate": math.nan}, {"rate": True}, {"sizes": {"a": True}}, {"description": "x" * 10_001}],
)
def test_numbers_of_any_family_are_finite_and_no_booleans(wrong):
    """R2.8, R2.9."""
    with pytest.raises(ValidationError, match=r"finite|boolean|10000 characters"):
        OthersSpec(name="a", **wrong)


def test_booleans_stay_where_they_belong():
    spec = OthersSpec(name="a", flag=True, either=False)
    assert (spec.flag, spec.either) == (True, False)


@given(st.recursive(st.integers() | st.floats() | st.text() | st.booleans(), lambda one: st.lists(one, max_size=3)))
def test_no_value_of_a_recipe_gets_past_with_anything_but_a_spec_error(value):
    """R2.8: whatever stands in a tag, it is a spec within bounds, or a complaint in one bounded line."""
    for key in ("epochs", "learning_rate", "hidden_size", "fields", "field_tokens", "locales", "seed"):
        content = {"name": "a", "family": "language_model", "architecture": "bert", "recipe": {key: value}}
        found, complaint = None, ""
        with contextlib.suppress(SpecError):
            found = parse_spec(content)
        if found is None:
            with pytest.raises(SpecError) as caught:
                parse_spec(content)
            complaint = str(caught.value)
        assert found is None or (found.parameters < 2**40 and 0 < found.recipe.learning_rate <= 1000)
        assert len(complaint) < 500
        assert "\n" not in complaint
