"""The language-model family on a small world whose labels are determined by type and colour."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import PreTrainedTokenizerFast

from esci_tournament.registry.errors import CandidateError, SpecError
from esci_tournament.tasks.families.language_model.model import LanguageModel
from esci_tournament.tasks.families.language_model.pair_scorer import PairScorer
from esci_tournament.tasks.families.language_model.spec import LanguageModelSpec
from esci_tournament.tasks.families.loading import load_candidate
from esci_tournament.tasks.families.protocol import FitData

TYPES = ("mug", "kettle", "lamp", "bulb", "カメラ", "三脚")  # neighbours go together
COLORS = ("red", "blue", "green", "黒い")


def world(pairs=2400, seed=0):
    """Pairs and products: E when type and colour agree, S the type alone, C types that go together, else I."""
    rng = np.random.default_rng(seed)
    kind, color = rng.integers(0, 6, 300), rng.integers(0, 4, 300)
    products = pd.DataFrame(
        {"title": [f"{COLORS[c]} {TYPES[k]} no{i % 50}" for i, (k, c) in enumerate(zip(kind, color, strict=True))]}
    ).assign(brand="", color="", bullets="", description="")
    asked, wanted, product = rng.integers(0, 6, pairs), rng.integers(0, 4, pairs), rng.integers(0, 300, pairs)
    near = rng.random(pairs) < 0.6  # random types would be irrelevant five times out of six
    product = np.where(near, [rng.choice(np.flatnonzero(kind // 2 == a // 2)) for a in asked], product)
    k, c = kind[product], color[product]
    label = np.select([(k == asked) & (c == wanted), k == asked, k // 2 == asked // 2], [0, 1, 2], 3).astype(np.int8)
    query = [f"{COLORS[w]} {TYPES[a]}" for w, a in zip(wanted, asked, strict=True)]
    frame = pd.DataFrame({"query": query, "locale": "us", "product": product.astype(np.int32), "label": label})
    return frame, products


def make_spec(**recipe):
    content = {"fields": ("title",), "max_length": 24, "learning_rate": 3e-3, "hidden_size": 32, "layers": 1,
               "heads": 2, "vocabulary": 400, "epochs": 2}  # fmt: skip
    origin = {key: recipe.pop(key) for key in ("checkpoint", "architecture") if key in recipe}
    return LanguageModelSpec(name="small", recipe=content | recipe, **(origin or {"architecture": "bert"}))


def data(frame, products, work, fitted=None, seed=0, **more):
    fitted = fitted or int(0.85 * len(frame))
    return FitData(
        frame.iloc[:fitted].reset_index(drop=True), frame.iloc[fitted:].reset_index(drop=True), products, None, seed,
        "cpu", work, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return world(400)


@pytest.fixture(scope="module")
def fitted(small, tmp_path_factory):
    return LanguageModel(make_spec()).fit(data(*small, tmp_path_factory.mktemp("work")))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["distilbert", "electra"])
def test_a_cross_encoder_learns_a_small_world_from_nothing(architecture, tmp_path):
    frame, products = world()
    spec = make_spec(architecture=architecture, epochs=5, layers=2, hidden_size=64, heads=4)
    model = LanguageModel(spec).fit(data(frame, products, tmp_path, fitted=2000))
    held_out = frame.iloc[2000:]
    chosen = model.predict_proba(held_out, products).argmax(1)
    # 0.26 by chance, 0.62 by the best rule on how many of the query's words stand in the title
    assert f1_score(held_out["label"], chosen, average="macro") > 0.65


def test_scores_are_probabilities_in_the_order_of_the_pairs(small, fitted):
    frame, products = small
    scores = fitted.predict_proba(frame, products)
    assert scores.shape == (400, 4)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
    order = np.random.default_rng(1).permutation(400)
    np.testing.assert_allclose(fitted.predict_proba(frame.iloc[order], products), scores[order], atol=1e-5)


def test_queries_and_products_never_seen_get_an_answer(fitted):
    pairs = pd.DataFrame({"query": ["zebra 未知", "", "mug"], "locale": "us", "product": [0, 1, 1]})
    products = pd.DataFrame({"title": ["𝔘nknown", ""]})
    assert np.isfinite(fitted.predict_proba(pairs, products)).all()


def test_no_pairs_give_no_scores(small, fitted):
    assert fitted.predict_proba(small[0].head(0), small[1]).shape == (0, 4)


@pytest.mark.parametrize("style", ["cross_encoder", "bi_encoder"])
def test_what_is_saved_scores_the_same_and_is_a_hugging_face_folder(small, style, tmp_path):
    frame, products = small
    model = LanguageModel(make_spec(style=style, epochs=1)).fit(data(frame, products, tmp_path / "work"))
    model.save(tmp_path / "model")
    again = load_candidate(tmp_path / "model")
    assert np.array_equal(model.predict_proba(frame, products), again.predict_proba(frame, products))
    assert again.parameters() == model.parameters()
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "head.safetensors", "spec.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_saved_model_can_be_the_checkpoint_of_the_next(small, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    spec = make_spec(checkpoint=str(tmp_path / "model"), epochs=1, frozen_embeddings=True, frozen_layers=1)
    model = LanguageModel(spec).fit(data(*small, tmp_path / "work"))
    for name, value in fitted._network.encoder.state_dict().items():
        assert torch.equal(value, model._network.encoder.state_dict()[name]), name


def test_words_that_were_added_to_a_tokenizer_alone_are_learnt_recorded_and_answered_for(small, fitted, tmp_path):
    frame, products = small
    fitted.save(tmp_path / "model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "model")
    tokenizer.add_tokens(["[BRAND]", "lampshade"])
    tokenizer.save_pretrained(tmp_path / "model")
    asked = frame.head(2).assign(query=["red lampshade", "red unheardof"])
    old = load_candidate(tmp_path / "model")  # as an earlier release has saved it
    assert np.isfinite(old.predict_proba(asked, products)).all()
    spec = make_spec(checkpoint=str(tmp_path / "model"), epochs=1)
    LanguageModel(spec).fit(data(frame, products, tmp_path / "work")).save(tmp_path / "next")
    assert json.loads((tmp_path / "next" / "training.json").read_text())["new_tokens"] == 2
    again = load_candidate(tmp_path / "next")
    assert np.isfinite(again.predict_proba(asked, products)).all()
    assert again._network.encoder.config.vocab_size == len(tokenizer)


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(small, fitted, tmp_path):
    frame, products = small
    scores = [
        LanguageModel(make_spec()).fit(data(frame, products, tmp_path / str(seed), seed=seed)).predict_proba(*small)
        for seed in (0, 1)
    ]
    assert np.array_equal(scores[0], fitted.predict_proba(*small))
    assert not np.array_equal(scores[0], scores[1])


def test_training_leaves_the_callers_random_state_alone(small, tmp_path):
    before = torch.random.get_rng_state()
    LanguageModel(make_spec(epochs=1)).fit(data(*small, tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_finished_run_is_not_trained_again(small, tmp_path):
    first = LanguageModel(make_spec()).fit(data(*small, tmp_path))
    steps = []
    again = LanguageModel(make_spec()).fit(data(*small, tmp_path, progress=lambda share, doing: steps.append(doing)))
    assert not [doing for doing in steps if doing.startswith("epoch")]
    assert np.array_equal(first.predict_proba(*small), again.predict_proba(*small))


def test_a_checkpoint_of_another_recipe_is_not_continued(small, tmp_path):
    LanguageModel(make_spec(learning_rate=1e-3)).fit(data(*small, tmp_path / "one"))
    here = LanguageModel(make_spec()).fit(data(*small, tmp_path / "one"))
    fresh = LanguageModel(make_spec()).fit(data(*small, tmp_path / "two"))
    assert np.array_equal(here.predict_proba(*small), fresh.predict_proba(*small))


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_if_nothing_had_happened(tmp_path):
    script = textwrap.dedent(
        f"""
        import importlib.util, sys
        from pathlib import Path
        import numpy as np, torch
        torch.set_num_threads(1)
        found = importlib.util.spec_from_file_location("helpers", {str(Path(__file__))!r})
        helpers = importlib.util.module_from_spec(found)
        found.loader.exec_module(helpers)
        frame, products = helpers.world(600)
        helpers.LanguageModel.checkpoint_seconds = 0.0
        said = lambda share, doing: print(share, flush=True)
        data = helpers.data(frame, products, Path(sys.argv[1]), progress=said)
        model = helpers.LanguageModel(helpers.make_spec(epochs=3)).fit(data)
        np.save(sys.argv[2], model.predict_proba(frame, products))
        """
    )

    def start(work, out):
        return subprocess.Popen(
            [sys.executable, "-c", script, str(work), str(out)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )

    whole = start(tmp_path / "whole", tmp_path / "whole.npy")
    assert whole.communicate(timeout=120)[0]
    killed = start(tmp_path / "cut", tmp_path / "cut.npy")
    for line in killed.stdout:
        if float(line) > 0.5:
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait(timeout=60)
    killed.stdout.close()
    assert (tmp_path / "cut" / "training.safetensors").is_file()
    assert not (tmp_path / "cut.npy").exists()
    rest = start(tmp_path / "cut", tmp_path / "cut.npy")
    shares = [float(line) for line in rest.communicate(timeout=120)[0].splitlines()]
    assert shares[1] > 0.4  # it went on; the first report is of reading text
    assert np.array_equal(np.load(tmp_path / "whole.npy"), np.load(tmp_path / "cut.npy"))


def test_a_diverging_run_says_at_which_step(small, tmp_path):
    model = LanguageModel(make_spec(learning_rate=1000, weight_decay=10, warmup_share=0.0))
    with pytest.raises(CandidateError, match=r"loss is .*(nan|inf).* at step \d+"):
        model.fit(data(*small, tmp_path))


def test_scores_that_are_not_finite_are_an_error(small, tmp_path):
    model = LanguageModel(make_spec(epochs=1)).fit(data(*small, tmp_path))
    with torch.no_grad():
        model._network.output.bias.fill_(float("nan"))
    with pytest.raises(CandidateError, match="not finite for 400 of 400"):
        model.predict_proba(*small)


def test_an_accumulated_step_learns_what_a_whole_one_learns(small, tmp_path):
    # Without dropout the two would be equal but for rounding; with it they are close runs of one recipe.
    one = LanguageModel(make_spec(epochs=1)).fit(data(*small, tmp_path / "one"))
    cut = LanguageModel(make_spec(epochs=1, accumulation=4)).fit(data(*small, tmp_path / "cut"))
    assert one.training.step == cut.training.step
    assert one.training.history[0]["loss"] == pytest.approx(cut.training.history[0]["loss"], rel=0.1)


def test_a_frozen_bi_encoder_trains_its_head_only(small, tmp_path):
    spec = make_spec(style="bi_encoder", frozen_layers=1, epochs=1)
    model = LanguageModel(spec).fit(data(*small, tmp_path))
    assert {p.requires_grad for p in model._network.encoder.parameters()} == {False}
    assert model.predict_proba(*small).shape == (400, 4)


def test_more_frozen_layers_than_there_are_is_a_wrong_spec(small, tmp_path):
    with pytest.raises(SpecError, match="frozen_layers is 2; the encoder has 1"):
        LanguageModel(make_spec(frozen_layers=2)).fit(data(*small, tmp_path))


def test_memory_that_runs_out_is_told_in_words(small, tmp_path, monkeypatch):
    def full(*_args, **_more):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model = LanguageModel(make_spec(epochs=1))
    monkeypatch.setattr(PairScorer, "logits", full)
    with pytest.raises(CandidateError, match=r"out of memory while training.*batch_size"):
        model.fit(data(*small, tmp_path))


def test_an_unfitted_model_says_so(small):
    with pytest.raises(CandidateError, match="not fitted"):
        LanguageModel(make_spec()).predict_proba(*small)


def test_class_weights_smoothing_layer_decay_and_checkpointing_work_together(small, tmp_path):
    spec = make_spec(
        class_weights="balanced", label_smoothing=0.1, layer_decay=0.5, gradient_checkpointing=True, epochs=3,
        patience=1, field_tokens={"title": 4},
    )  # fmt: skip
    started = time.monotonic()
    model = LanguageModel(spec).fit(data(*small, tmp_path))
    assert len(model.training.history) <= 3
    curves = model.learning_curves()
    assert curves["train_loss"] == [one["loss"] for one in model.training.history]
    assert set(curves) == {"train_loss", "validation_macro_f1"}
    assert 0 < model.training.seconds <= time.monotonic() - started


def test_low_rank_updates_alone_are_trained_and_are_part_of_the_weights_that_are_saved(small, fitted, tmp_path):
    pytest.importorskip("peft", reason="the optional dependency peft is not installed")
    fitted.save(tmp_path / "start")
    spec = make_spec(checkpoint=str(tmp_path / "start"), lora_rank=2, lora_alpha=4, epochs=1)
    model = LanguageModel(spec).fit(data(*small, tmp_path / "work"))
    before, after = fitted._network.encoder.state_dict(), model._network.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith("weight") and "norm" not in name.lower() and "embed" not in name for name in changed)
    model.save(tmp_path / "model")
    assert np.array_equal(load_candidate(tmp_path / "model").predict_proba(*small), model.predict_proba(*small))


def test_low_rank_updates_without_peft_name_the_extra(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SpecError, match=r"esci-tournament\[lora\]"):
        LanguageModel(make_spec(lora_rank=2)).fit(data(*small, tmp_path))


def test_keywords_go_with_the_model(small, tmp_path):
    model = LanguageModel(make_spec(keywords={"title": 2}, epochs=1)).fit(data(*small, tmp_path / "work"))
    model.save(tmp_path / "model")
    again = load_candidate(tmp_path / "model")
    assert np.array_equal(model.predict_proba(*small), again.predict_proba(*small))
    assert len(again._keywords.shorten("red mug no7", 2).split()) == 2


def test_a_model_of_one_locale_answers_for_others_with_their_class_shares(small, tmp_path):
    frame, products = small
    frame = frame.assign(locale=np.where(np.arange(len(frame)) % 4 == 0, "es", "us"))
    told = data(frame, products, tmp_path / "work")
    model = LanguageModel(make_spec(locales=("us",), epochs=1)).fit(told)
    model.save(tmp_path / "model")
    again = load_candidate(tmp_path / "model")
    scores = again.predict_proba(frame.assign(locale=frame["locale"].replace("es", "jp")), products)
    everything = np.bincount(told.pairs["label"], minlength=4) / len(told.pairs)
    np.testing.assert_allclose(scores[0], everything, atol=1e-6)  # no pair of jp was there to fit on
    spanish = told.pairs.loc[told.pairs["locale"] == "es", "label"]
    scores = again.predict_proba(frame, products)
    np.testing.assert_allclose(scores[0], np.bincount(spanish, minlength=4) / len(spanish), atol=1e-6)
    assert np.array_equal(scores, model.predict_proba(frame, products))
    assert len(np.unique(scores[frame["locale"] == "us"], axis=0)) > 10


def test_locales_without_pairs_are_told_with_those_there_are(small, tmp_path):
    with pytest.raises(CandidateError, match=r"its locales \(jp\); there are pairs of us"):
        LanguageModel(make_spec(locales=("jp",))).fit(data(*small, tmp_path))


@pytest.fixture(scope="module")
def bi_encoder(small, tmp_path_factory):
    return LanguageModel(make_spec(style="bi_encoder", epochs=1)).fit(data(*small, tmp_path_factory.mktemp("work")))


def test_with_products_embedded_ahead_only_queries_and_new_products_are_encoded(small, bi_encoder, tmp_path):
    frame, products = small
    bi_encoder.save(tmp_path / "model")
    plain, ahead = load_candidate(tmp_path / "model"), load_candidate(tmp_path / "model")
    ahead.embed_products(products.iloc[:200], tmp_path / "vectors")
    changed = products.assign(
        title=[f"{title} new" if row == 7 else title for row, title in enumerate(products["title"])]
    )
    encoded = []
    embed = ahead._network.embed
    ahead._network.embed = lambda texts: encoded.append(len(texts.tokens)) or embed(texts)
    scores = ahead.predict_proba(frame, changed)
    np.testing.assert_allclose(scores, plain.predict_proba(frame, changed), atol=1e-5)
    rows = frame["product"].unique()
    new = {text for row in rows if row >= 200 or row == 7 for text in [changed["title"][row]]} - set(
        products["title"][:200]
    )
    assert sum(encoded) <= frame["query"].nunique() + sum(changed["title"][row] in new for row in rows)
    assert sum(encoded) < frame["query"].nunique() + len(rows)


def test_vectors_of_another_model_or_half_of_them_are_refused(small, bi_encoder, tmp_path):
    bi_encoder.save(tmp_path / "model")
    model = load_candidate(tmp_path / "model")
    model.embed_products(small[1], tmp_path / "vectors")
    load_candidate(tmp_path / "model").use_products(tmp_path / "vectors")
    with torch.no_grad():
        model._network.output.bias.add_(1)
    with pytest.raises(SpecError, match="of another model"):
        model.use_products(tmp_path / "vectors")
    (tmp_path / "vectors" / "header.json").unlink()
    with pytest.raises(SpecError, match="no whole set"):
        model.use_products(tmp_path / "vectors")


def test_a_cross_encoder_has_no_vectors_of_products(small, fitted, tmp_path):
    with pytest.raises(SpecError, match="cross-encoder"):
        fitted.embed_products(small[1], tmp_path)
