"""Run the three steps that every candidate goes through, each stored under its inputs: train, score, profile."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from esci_tournament.registry.errors import CandidateError, NotFoundError, StoreError
from esci_tournament.registry.labels import LABELS
from esci_tournament.registry.plugins import distribution_of
from esci_tournament.registry.scores import SAME_TOLERANCE, ScoreStore
from esci_tournament.registry.specs import CandidateSpec, spec_paths
from esci_tournament.registry.stages import StageKey, StageStore
from esci_tournament.tasks.candidates.profile import MeasuredCost, profile
from esci_tournament.tasks.candidates.provenance import Seen, declaration, what_it_saw
from esci_tournament.tasks.data.behaviour import edges
from esci_tournament.tasks.data.dataset import Dataset
from esci_tournament.tasks.data.relations import relation_type, release_of_relation
from esci_tournament.tasks.data.split import FitPlan, held_out_keys
from esci_tournament.tasks.data.store import read_frame, write_frame
from esci_tournament.tasks.families.loading import candidate_class, load_candidate, make_candidate
from esci_tournament.tasks.families.protocol import FitData, Progress, silent

FIT_RECORD = "fit.json"
CONSTANT = 1e-6  # columns that vary by less count as constant
SHIFT_PAIRS = 2_000  # pairs that suffice to see the shift between fold models and the served model
FULL = "full"  # the plan of the model that serves


@dataclass(frozen=True)
class Origin:
    """What a model was fitted on.

    Attributes:
        data_version: Version of the data.
        roles: Key of the stage that gave its pairs their roles.
    """

    data_version: str
    roles: str


@dataclass(frozen=True)
class CandidateInputs:
    """One candidate on one data version: what its three steps are keyed by.

    Attributes:
        candidate: Id, "name/version".
        spec: The candidate's spec.
        content: Digest of the files that the spec points to, see :func:`content_digest`; "" when there are none.
        data_version: Version of the data.
        roles: Key of the stage that gave every pair its role.
        seed: Seed in force for this candidate.
        device: Torch device.
        fitted: What its model was fitted on when that is older data; such a model is never fitted again, and scores
            only pairs whose query it has not seen.
    """

    candidate: str
    spec: CandidateSpec
    content: str
    data_version: str
    roles: str
    seed: int
    device: str
    fitted: Origin | None = None

    @property
    def origin(self) -> Origin:
        """What its model is, or will be, fitted on."""
        return self.fitted or Origin(self.data_version, self.roles)

    def train_key(self, stages: StageStore, plan: str) -> str:
        """Return the stage key of the model of one plan; it does not depend on the device."""
        return stages.key(
            "train",
            spec=self.spec.digest(),
            content=self.content,
            data=self.origin.data_version,
            roles=self.origin.roles,
            plan=plan,
            seed=self.seed,
        )

    def model_folder(self, stages: StageStore, *, whole: bool = False) -> Path:
        """Return the folder of the model that serves, as it was saved.

        Args:
            stages: The stage store.
            whole: Whether its files are compared with their digests, as is due before they leave the store.

        Returns:
            The folder.

        Raises:
            NotFoundError: If it has not been trained.
            StoreError: If its files are not as they were saved.
        """
        key = self.train_key(stages, FULL)
        folder = stages.find(key)
        if folder is None:
            raise NotFoundError(f"the model of {self.candidate} is not in the stage store; run its tournament again")
        if whole:
            try:
                stages.whole(key)
            except StoreError as error:
                raise StoreError(f"the model of {self.candidate}: {error}") from error
        return folder

    def is_done(self, stages: StageStore, scores: ScoreStore) -> bool:
        """Return whether model and scores are stored and as they were stored; both are read for it."""
        key, where = self.train_key(stages, FULL), (self.candidate, self.data_version, self.digest())
        stored = scores.has(*where) and stages.find(key) is not None
        return stored and not scores.damaged(*where) and not stages.damaged(key)

    def profile_key(self, stages: StageStore) -> str:
        """Return the stage key of the cost of the model that serves, on the device at hand."""
        return stages.key("profile", model=self.train_key(stages, FULL), device=self.device)

    def digest(self) -> str:
        """Return the recipe under which the score store keeps the scores.

        It is a SHA-256 in hex of spec, content, roles, seed and `fitted`; candidate and data version are not in it.
        """
        content: list[object] = [self.spec.digest(), self.content, self.roles, self.seed]
        if self.fitted:
            content.append([self.fitted.data_version, self.fitted.roles])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def content_digest(spec: CandidateSpec) -> str:
    """Return a SHA-256 over the local files that a spec points to and the plug-in it needs.

    A checkpoint that is edited in place is another candidate, whatever its path says; so is another release of the
    code of a family, or of a relation, that is plugged in.

    Args:
        spec: The spec; all files below the paths that it has are read.

    Returns:
        64 hex digits, "" when it needs neither files nor a plug-in.
    """
    places, code = spec_paths(spec), distribution_of(spec.family) + "".join(_code_of_relations(spec))
    files = sorted(file for place in places for file in (place, *place.rglob("*")) if file.is_file())
    if not files and not code:
        return ""
    digest = hashlib.sha256(code.encode())
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def is_plugged(spec: CandidateSpec) -> bool:
    """Return whether code of another distribution makes the candidate: its family, or one of its relations."""
    return bool(distribution_of(spec.family) or _code_of_relations(spec))


def train(
    inputs: CandidateInputs,
    plan: FitPlan,
    dataset: Dataset,
    stages: StageStore,
    progress: Progress = silent,
    scores: ScoreStore | None = None,
) -> Path:
    """Fit the candidate on one plan and return the folder of the model; one that is there is not fitted again.

    Beside the model stand the keys of every query it has seen: they decide later what is out of sample. Two processes
    that train the same model wait for each other. A damaged model is set aside and fitted again. What is on record was
    decided by the scores of the old one, so where those are stored the new one must give the same.

    Args:
        inputs: The candidate.
        plan: What it is fitted on.
        dataset: The data.
        stages: The stage store; an interrupted fit continues from its checkpoints there.
        progress: Called with the share done in [0, 1] and what is being done.
        scores: The score store, in which scores of the same model may stand.

    Returns:
        The folder: what the model's `save` wrote, what it has seen, and the record that :func:`fit_record` reads.

    Raises:
        NotFoundError: If the model was fitted on older data and is not there any more.
        CandidateError: If its scores are stored and the model, fitted again, gives other ones.
    """
    key = inputs.train_key(stages, plan.name)
    if found := stages.sound(key):
        return found
    if inputs.fitted:
        raise NotFoundError(
            f"the model of {inputs.candidate}, fitted on data version {inputs.fitted.data_version[:12]}, is not in the "
            "stage store any more; fit it again with the setting refit"
        )
    work = stages.work(key)
    # A worker whose supervisor was killed ends within a second; until then it may still write its checkpoint.
    with FileLock(work.with_suffix(".lock")):
        return stages.sound(key) or _fit(inputs, plan, dataset, stages, key, work, progress, scores)


def _fit(
    inputs: CandidateInputs,
    plan: FitPlan,
    dataset: Dataset,
    stages: StageStore,
    key: str,
    work: Path,
    progress: Progress,
    scores: ScoreStore | None,
) -> Path:
    started = time.perf_counter()
    data = FitData(
        pairs=dataset.pairs.iloc[plan.fit],
        validation=dataset.pairs.iloc[plan.validation],
        products=dataset.products,
        edges=_edges(inputs, plan, dataset, stages),
        seed=inputs.seed,
        device=inputs.device,
        work=work,
        progress=progress,
    )
    model = make_candidate(inputs.spec).fit(data)
    seen = replace(what_it_saw(inputs.spec, data), edges=_behaviour_keys(inputs.spec, plan, dataset, data.edges))

    def build(folder: Path) -> None:
        model.save(folder)
        seen.write(folder)
        record: dict[str, Any] = {"pairs": len(data.pairs), "plan": plan.name, "curves": model.learning_curves()}
        record["seconds"] = time.perf_counter() - started
        (folder / FIT_RECORD).write_text(json.dumps(record), encoding="utf-8")
        if scores is not None:
            _agrees(folder, inputs, plan, dataset, scores)

    return stages.obtain(key, build)


def _agrees(folder: Path, inputs: CandidateInputs, plan: FitPlan, dataset: Dataset, scores: ScoreStore) -> None:
    """Refuse a model that does not give the scores that are stored of the one in whose place it comes."""
    where = inputs.candidate, inputs.data_version, inputs.digest()
    if not scores.has(*where) or scores.damaged(*where):
        return
    stored, pairs = scores.get(*where), dataset.pairs.iloc[plan.score]
    row_of = pd.Series(np.arange(len(stored.example_id)), index=stored.example_id)
    old = stored.probabilities[row_of.reindex(pairs["example_id"]).to_numpy()]
    new = load_candidate(folder, inputs.device).predict_proba(pairs, dataset.products)
    apart = float(np.abs(np.asarray(new) - old).max(initial=0.0))
    if not apart <= SAME_TOLERANCE:
        raise CandidateError(
            f"{inputs.candidate}: its model in the stage store was damaged or removed, and fitted again it is another "
            f"one (scores differ by up to {apart:.3g}); it cannot stand for the one that was scored. Restore the "
            "folder in the stage store from a backup, or register the candidate as a new version"
        )


def _edges(inputs: CandidateInputs, plan: FitPlan, dataset: Dataset, stages: StageStore) -> pd.DataFrame | None:
    """Return the edges a candidate may see: those of every judged query that it does not fit on are held out."""
    relations = _relations(inputs.spec)
    if not relations:
        return None
    wanted = relations if len(relations) > 1 else relations[0]
    code = _code_of_relations(inputs.spec)
    told = {"relation": wanted} | ({"code": code} if code else {})
    key = stages.key("edges", data=inputs.data_version, roles=inputs.roles, plan=plan.name, **told)

    def build(folder: Path) -> None:
        frame = edges(dataset, wanted, held_out_keys(dataset.pairs, plan))
        write_frame(frame, folder / "edges.arrow")

    return read_frame(stages.obtain(key, build) / "edges.arrow")


def _code_of_relations(spec: CandidateSpec) -> list[str]:
    """Return relation and release of those of the candidate's relations that other distributions plug in."""
    releases = {name: release_of_relation(name) for name in _relations(spec)}
    return [f"\n{name} {release}" for name, release in releases.items() if release]


def _relations(spec: CandidateSpec) -> tuple[str, ...]:
    return candidate_class(spec.family).relations_of(spec)


def _behaviour_keys(spec: CandidateSpec, plan: FitPlan, dataset: Dataset, edges: pd.DataFrame | None) -> np.ndarray:
    """Return the keys of the queries whose behaviour is in a model's graph, uint64, ascending.

    An edge between products does not say which query its session began with, so all that are not held out count.
    """
    keys = np.zeros(0, np.uint64)
    if edges is not None and "query_key" in edges:
        of_queries = edges["source"].to_numpy() < 0 if "source" in edges else np.ones(len(edges), dtype=bool)
        keys = np.unique(edges["query_key"].to_numpy()[of_queries])
    if dataset.events is not None and any(relation_type(one).of_sessions for one in _relations(spec)):
        of_sessions = np.setdiff1d(dataset.events["query_key"].to_numpy(), held_out_keys(dataset.pairs, plan))
        keys = np.union1d(keys, of_sessions)
    return keys.astype(np.uint64)


def score(
    inputs: CandidateInputs,
    plans: Sequence[FitPlan],
    dataset: Dataset,
    stages: StageStore,
    scores: ScoreStore,
    progress: Progress = silent,
) -> None:
    """Score every pair of the plans with a model that did not see its query, into the score store.

    A model that is not trained yet is trained. A model that was fitted on older data leaves out the pairs whose query
    it has seen, in pairs or in behaviour. Scores that are stored already are not computed again.

    Args:
        inputs: The candidate.
        plans: The plans; each scores its own pairs.
        dataset: The data.
        stages: The stage store, with the models.
        scores: The score store, which receives float32 (n_scored, 4).
        progress: Called with the share of plans done, in [0, 1], and the plan.

    Raises:
        LeakError: If a model is asked to score a query it was fitted on.
        CandidateError: If a model of older data has seen every query that is to be scored, or a model does not return
            class probabilities.
        NotFoundError: If the model was fitted on older data and is not there any more.
    """
    recipe = inputs.digest()
    where = inputs.candidate, inputs.data_version, recipe
    if scores.has(*where) and not scores.damaged(*where):
        return
    ids, rows, cover = [], [], list[int]()
    for number, plan in enumerate(plans):
        progress(number / len(plans), f"score {plan.name}")
        folder = train(inputs, plan, dataset, stages, scores=scores)
        pairs, seen = dataset.pairs.iloc[plan.score], Seen.read(folder)
        if inputs.fitted:
            pairs = pairs[~seen.of(pairs)]
            if not len(pairs):
                raise CandidateError(
                    f"{inputs.candidate}: its model, fitted on older data, has seen every query that is judged now; "
                    "fit it again with the setting refit"
                )
        seen.check(pairs, f"{inputs.candidate}, plan {plan.name}")
        model = load_candidate(folder, inputs.device)
        cover.append(model.cover(pairs))
        rows.append(checked_scores(inputs.candidate, model.predict_proba(pairs, dataset.products), pairs))
        ids.append(pairs["example_id"].to_numpy())
    scores.put(
        inputs.candidate,
        inputs.data_version,
        recipe,
        example_id=np.concatenate(ids),
        probabilities=np.concatenate(rows),
        out_of_sample=np.ones(sum(map(len, ids)), dtype=bool),
        provenance={"cover": sum(cover) / max(sum(map(len, ids)), 1), **declaration(inputs.spec)},
    )


def checked_scores(candidate: str, probabilities: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """Return scores that have the right form: four columns, one row per pair, not the same for all pairs.

    That they are distributions is checked by the score store.

    Args:
        candidate: How the message calls the model.
        probabilities: What the model returned; (n_pairs, 4) is wanted, columns in the order E, S, C, I.
        pairs: The pairs that it was asked for.

    Returns:
        The same as an array, (n_pairs, 4).

    Raises:
        CandidateError: If they have not; the message says what came instead.

    Example:
        >>> rows = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]
        >>> checked_scores("mine/1", rows, pd.DataFrame({"query": ["kettle", "mug"]})).shape
        (2, 4)
    """
    scores = np.asarray(probabilities)
    if scores.ndim != 2 or scores.shape[1] != len(LABELS):
        classes = scores.shape[1] if scores.ndim == 2 else 0
        raise CandidateError(
            f"{candidate}: it answers with {classes or 'no'} classes (an array {scores.shape}); "
            f"there are {len(LABELS)}: {', '.join(LABELS)}, in this order"
        )
    if len(scores) != len(pairs):
        raise CandidateError(
            f"{candidate}: it answers with {len(scores)} rows for {len(pairs)} pairs; it must give one row per pair"
        )
    if len(scores) > 1 and (np.ptp(scores, axis=0) < CONSTANT).all():
        shown = ", ".join(f"{value:.4f}" for value in scores[0])
        raise CandidateError(
            f"{candidate}: its scores are constant, ({shown}) for each of {len(scores)} pairs; it does not read "
            "them: look for a learning rate that is too high, or inputs that arrive empty"
        )
    return scores


def measure_shift(
    inputs: CandidateInputs,
    plans: Sequence[FitPlan],
    dataset: Dataset,
    stages: StageStore,
    scores: ScoreStore | None = None,
) -> None:
    """Store how far the scores of the fold models are from those of the served model, on test pairs.

    The aggregator learns from the scores of fold models and serves with those of the full model. Stored is the total
    variation distance between the two, in [0, 1], averaged over at most :data:`SHIFT_PAIRS` test pairs and over the
    folds. Without folds there is nothing to store.

    Args:
        inputs: The candidate.
        plans: Its plans, "full" among them.
        dataset: The data.
        stages: The stage store, with the models; those that are not there are trained.
        scores: The score store, see :func:`train`.
    """
    folds = [plan for plan in plans if plan.name != FULL]
    if not folds:
        return
    full = next(plan for plan in plans if plan.name == FULL)
    pairs = dataset.pairs.iloc[full.score[:SHIFT_PAIRS]]

    def probabilities(plan: FitPlan) -> np.ndarray:
        folder = train(inputs, plan, dataset, stages, scores=scores)
        return load_candidate(folder, inputs.device).predict_proba(pairs, dataset.products)

    def build(folder: Path) -> None:
        served = probabilities(full)
        value = np.mean([0.5 * np.abs(probabilities(plan) - served).sum(axis=1).mean() for plan in folds])
        (folder / "shift.json").write_text(json.dumps(float(value)), encoding="utf-8")

    stages.obtain(_shift_key(inputs, folds, stages), build)


def stored_shift(inputs: CandidateInputs, plans: Sequence[FitPlan], stages: StageStore) -> float | None:
    """Return what :func:`measure_shift` stored, a number in [0, 1], or None when there is nothing.

    Args:
        inputs: The candidate.
        plans: Its plans.
        stages: The stage store.

    Returns:
        The mean total variation distance, or None.
    """
    folder = stages.find(_shift_key(inputs, [plan for plan in plans if plan.name != FULL], stages))
    return float(json.loads((folder / "shift.json").read_text(encoding="utf-8"))) if folder else None


def _shift_key(inputs: CandidateInputs, folds: Sequence[FitPlan], stages: StageStore) -> StageKey:
    return stages.key("shift", model=inputs.train_key(stages, FULL), folds=len(folds))


def measure(
    inputs: CandidateInputs, dataset: Dataset, plan: FitPlan, stages: StageStore, scores: ScoreStore | None = None
) -> MeasuredCost:
    """Return the measured cost of the model that serves, on the device at hand; a stored cost is not measured again.

    Args:
        inputs: The candidate.
        dataset: The data.
        plan: The plan of the model that serves; pages are made of the pairs that it scores.
        stages: The stage store.
        scores: The score store, see :func:`train`.

    Returns:
        The cost.
    """
    key = inputs.profile_key(stages)
    if found := stages.sound(key):
        return MeasuredCost.from_json((found / "cost.json").read_text(encoding="utf-8"))
    model = load_candidate(train(inputs, plan, dataset, stages, scores=scores), inputs.device)
    cost = profile(model, dataset.pairs.iloc[plan.score], dataset.products, inputs.device)
    with stages.make(key) as folder:
        (folder / "cost.json").write_text(cost.to_json(), encoding="utf-8")
    return cost


def fit_record(folder: Path) -> dict[str, Any]:
    """Return what is on record of a fit.

    Args:
        folder: The folder that :func:`train` returned.

    Returns:
        `seconds` that the fit took, `pairs` that it was fitted on, the name of the `plan`, and `curves` as
        :meth:`~esci_tournament.tasks.families.protocol.Candidate.learning_curves` returns them, which earlier releases
        did not record.
    """
    record: dict[str, Any] = json.loads((folder / FIT_RECORD).read_text(encoding="utf-8"))
    return record
