"""Every mistake of a file, of a mapping and of the settings is told at once, in words."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.registry.complaints import as_documents
from esci_tournament.registry.errors import SpecError, UsageError
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.specs import parse_spec, parse_specs, read_specs
from esci_tournament.registry.toml_lines import line_at, lines_of

OF_PYDANTIC = re.compile(r"Input should|String should|Value error|Field required|Extra inputs|\^|\[type=|\$")
GOOD = 'name = "good"\nfamily = "graph_network"\narchitecture = "gcn"\n'
BERT = 'name = "b"\nfamily = "language_model"\narchitecture = "bert"\n'


def told(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_specs(path)
    assert not OF_PYDANTIC.search(str(caught.value))
    json.dumps(as_documents(caught.value))
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[candidate]]\n", ["family", "name"]),
        ("[[candidate]]\n" + GOOD + "[[candidate]]\n" + GOOD, ["name"]),
        ('note = 1\n[[candidate]]\nname = "a/b"\nfamily = "graph_netwrk"\nseed = -1\n',
         ["note", "name", "family", "seed"]),
        ("[[candidate]]\n" + BERT + 'colour = "red"\n[candidate.recipe]\nepochs = 0\nstyle = 1\n',
         ["colour", "recipe.epochs", "recipe.style"]),
        ('[[candidate]]\nname = "x"\nfamily = "graph_network"\narchtecture = "gcn"\n', ["archtecture"]),
        ('[[candidate]]\nname = "x"\nfamily = "language_model"\ncheckpont = "a/b"\n', ["checkpont"]),
        ("[[candidate]]\n" + BERT + 'checkpoint = "a/b"\nrecipe = { epochs = 0 }\n', ["recipe.epochs", ""]),
        ("[[candidate]]\n" + GOOD + "seed = true\nrelation = []\n[candidate.recipe]\nlayers = false\ndropout = inf\n",
         ["seed", "relation", "recipe.layers", "recipe.dropout"]),
        ("candidate = [3]\nx = 1\n", ["x", ""]),
        ("x = 1\n", ["x", "candidate"]),
        ("[[candidate]]\n" + GOOD + "recipe = 3\n[[candidate]]\nname = 3\n", ["recipe", "family", "name"]),
    ],
)  # fmt: skip
def test_each_mistake_of_a_file_is_told(tmp_path, text, expected):
    error = told(tmp_path / "candidates.toml", text)
    assert sorted(one.key for one in error.complaints) == sorted(expected)


def test_a_complaint_says_where_it_is_what_is_wrong_and_what_would_be_right(tmp_path):
    text = f'[[candidate]]\n{GOOD}[[candidate]]\n{BERT}description = """\n[[candidate]]\n"""\n\n[candidate.recipe]\n'
    error = told(tmp_path / "candidates.toml", f'{text}epochs = "many"\nstile = "bi_encoder"\nprecision = "float61"\n')
    assert [one["line"] for one in as_documents(error)] == [14, 15, 16]
    assert str(error) == (
        f"{tmp_path}/candidates.toml: 3 things are wrong:\n"
        "  line 14, candidate 2 (b): recipe.epochs: it must be a whole number from 1 to 1,000, such as 3 (got 'many')\n"
        "  line 15, candidate 2 (b): unknown key 'recipe.stile'; did you mean recipe.style?\n"
        '  line 16, candidate 2 (b): recipe.precision: it must be one of "auto", "float32", "bfloat16", "float16"; '
        "did you mean float16? (got 'float61')"
    )


MISTAKES = {
    "colour": 'colour = "red"',
    "seed": "seed = -1",
    "description": "description = 3",
    "relation": 'relation = "kisses"',
    "recipe.epochs": "recipe.epochs = 0",
    "recipe.layers": 'recipe.layers = "two"',
    "recipe.dropout": "recipe.dropout = true",
    "recipe.stile": "recipe.stile = 1",
    "recipe.class_weights": 'recipe.class_weights = "equal"',
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.sampled_from(sorted(MISTAKES))), min_size=1, max_size=4).filter(any))
def test_as_many_complaints_as_mistakes(tmp_path_factory, planted):
    text, expected = "", []
    for number, keys in enumerate(planted, 1):
        text += f'[[candidate]]\nname = "c{number}"\nfamily = "graph_network"\narchitecture = "gcn"\n'
        for key in sorted(keys):
            text += MISTAKES[key] + "\n"
            expected.append((f"candidate {number} (c{number})", key, text.count("\n")))
    error = told(tmp_path_factory.getbasetemp() / "planted.toml", text)
    assert sorted((one.candidate, one.key, one.line) for one in error.complaints) == sorted(expected)


def test_mappings_are_told_together_too():
    wrong = {"name": "a", "family": "graph_network", "architecture": "gcm", "recipe": {"layers": 9}}
    with pytest.raises(
        SpecError, match=r"^tag: 2 things are wrong: \(1\) architecture: .* \(2\) recipe\.layers: [^\n]*$"
    ):
        parse_spec(wrong, "tag")
    with pytest.raises(SpecError) as caught:
        parse_specs([wrong, wrong])
    assert len(caught.value.complaints) == 5


def test_a_check_of_what_a_spec_points_to_is_told_with_the_rest(tmp_path):
    path = tmp_path / "candidates.toml"
    path.write_text(f"[[candidate]]\n{GOOD}[[candidate]]\n{BERT}colour = 1\n", encoding="utf-8")

    def check(spec):
        raise SpecError(f"{spec.name}: its folder is missing")

    with pytest.raises(SpecError) as caught:
        read_specs(path, check)
    assert [one["problem"].partition(";")[0] for one in as_documents(caught.value)] == [
        "good: its folder is missing",
        "unknown key 'colour'",
    ]


def test_wrong_settings_of_all_sources_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tournament.toml").write_text('seed = "x"\n\nfresh_share = 0.1\nsed = 3\nmanifest_digest = "1"\n')
    monkeypatch.setenv("TOURNAMENT_REVIEWERS", "ana")
    monkeypatch.setenv("TOURNAMENT_ALPHA", "7")
    with pytest.raises(UsageError) as caught:
        read_settings(folds=1)
    text = str(caught.value)
    assert not OF_PYDANTIC.search(text)
    for words in (
        "7 things are wrong",
        "setting seed: it must be a whole number at least 0, such as 0",
        "correct line 1 of tournament.toml",
        "setting fresh_share is gone",
        "there is no setting sed; did you mean seed?",
        "64 digits",
        "correct the variable TOURNAMENT_REVIEWERS",
        "correct the variable TOURNAMENT_ALPHA",
        "setting folds",
    ):
        assert words in text, words


def test_no_complaint_quotes_a_secret_or_mark_up_of_a_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^setting webhook_secret: it must be text[^\n]*$") as caught:
        read_settings(webhook_secret=["hunter2"])
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SpecError) as refused:
        parse_spec({"name": "a", "family": "graph_network", "architecture": "gcn", "<b>\n": float("inf")})
    assert not re.search(r"[<>\n]", str(refused.value))


def test_every_setting_and_key_says_in_words_what_it_takes():
    from esci_tournament.registry.complaints import kind_in_words
    from esci_tournament.registry.plugins import families, spec_class

    models = [Settings, *map(spec_class, families())]
    models += [field.annotation for one in models for name, field in one.model_fields.items() if name == "recipe"]
    silent = [
        (model.__name__, name)
        for model in models
        for name, field in model.model_fields.items()
        if not kind_in_words(field.annotation, field.metadata)
    ]
    assert silent == []


@given(st.text("ab[]='\"\n#{}.\\ ", max_size=60))
def test_lines_are_found_or_not_in_any_text(text):
    found = lines_of(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
    assert line_at(found, ("nowhere", 3)) is None or ("nowhere",) in found
