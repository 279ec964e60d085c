"""Define the summary of one tournament, from which page, figures, terminal table and `--json` are made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Accuracy, macro F1 and weighted F1 of one set of labels, each a share in [0, 1].

    Attributes:
        accuracy: Share of pairs whose label is right.
        macro_f1: Mean of the F1 of the classes that occur in the truth.
        weighted_f1: Mean of the F1 of the classes, weighted by their pairs.
        others: The declared metric where it is another, under its name.

    Example:
        >>> Metrics(0.6, 0.5, 0.55, {"kappa": 0.4}).value("kappa")
        0.4
    """

    accuracy: float
    macro_f1: float
    weighted_f1: float
    others: dict[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """Return a metric by its name.

        Args:
            metric: "accuracy", "macro_f1", "weighted_f1" or a key of `others`; one that was not measured is a KeyError.

        Returns:
            Its value.
        """
        return self.by_name()[metric]

    def by_name(self) -> dict[str, float]:
        """Return every metric that was measured under its name."""
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "weighted_f1": self.weighted_f1} | self.others


@dataclass(frozen=True)
class ModelSummary:
    """One model of a tournament.

    Attributes that were not measured, as those of a model that failed, are None or empty.

    Attributes:
        name: Name of the registered model.
        version: Its version.
        family: Its family, such as "language_model" or "graph_network".
        detail: What it is, in a few words such as "electra, from scratch" or "gatv2 on clicks".
        entry: "incumbent" (member of the champion), "candidate" (new in this tournament) or "bench".
        status: "member", "evicted" (by the selection) or "failed".
        reason: Why it is not a member, in a sentence; "" for a member.
        test: Metrics of the model alone on the test split; told of members of a challenger that may serve.
        test_by_locale: Locale -> the same for each locale.
        blend: Metrics of the model alone on the pairs that the aggregator learns from, none of which it was fitted on.
        blend_by_locale: Locale -> the same for each locale.
        cost: JSON of `esci_tournament.tasks.candidates.profile.MeasuredCost`. Keys used: kind ("cpu" or "gpu"),
            memory_mib, milliseconds_per_page_p50, milliseconds_per_page_p95 (a page of 40 pairs), parameters.
        utility: SHAP share of the final ensemble's total, in [0, 1]; None for a model that is not a member.
        utility_low: Lower end of its interval.
        utility_high: Upper end of its interval.
        utility_all: The share in the ensemble of all models.
        drop_one: Primary metric lost on validation when the ensemble is re-fit without it; None for a model that is not
            a member.
        drop_one_error: Its standard error over queries.
        above_noise: Whether the utility is above that of a member of noise; None when no re-fits were made.
        fit_seconds: Time of its training, of the run that did it.
        temperature: What its probabilities are to be tempered with, fitted on the pairs the aggregator learns from.
        calibration_error: Expected calibration error of the raw probabilities on the test split, in [0, 1]; told where
            `test` is.
        calibration_error_after: The same of the tempered probabilities.
        reliability: Bins of the raw probabilities on the test split, each [mean confidence, accuracy, pairs].
        cover: Share of the pairs that it answered for, in [0, 1]; less than 1 for a score file that lacks some.
        curves: Learning curves of its training: name -> a value for each epoch, None where none was measured; see
            :meth:`~esci_tournament.tasks.families.protocol.Candidate.learning_curves`. They are of training and
            validation pairs.
    """

    name: str
    version: str
    family: str
    detail: str
    entry: str
    status: str
    reason: str = ""
    test: Metrics | None = None
    test_by_locale: dict[str, Metrics] = field(default_factory=dict)
    blend: Metrics | None = None
    blend_by_locale: dict[str, Metrics] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    utility: float | None = None
    utility_low: float | None = None
    utility_high: float | None = None
    utility_all: float | None = None
    drop_one: float | None = None
    fit_seconds: float | None = None
    temperature: float | None = None
    calibration_error: float | None = None
    calibration_error_after: float | None = None
    reliability: list[list[float]] = field(default_factory=list)
    cover: float | None = None
    drop_one_error: float | None = None
    above_noise: bool | None = None
    curves: dict[str, list[float | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """All that a reviewer needs of one tournament.

    Numbers of the test split are told where the challenger may serve. Else the summary is sealed, see
    `esci_tournament.tasks.report.sealing`: every attribute that is said to be on the test split is empty then, and
    `out_of_fold` takes their place.

    Attributes:
        tournament: Id.
        started: ISO time in UTC.
        seconds: Duration of the run that finished it.
        machine: {"device", "cpu", "cores", "memory_gib", "platform", "python"}.
        data: {"version", "source", "pairs", "queries", "products", "events", "by_split_locale": [{"split", "locale",
            "pairs", "queries", "E", "S", "C", "I"}], "roles": {"fit": pairs, "validation": ..., "blend": ..., ...}}.
        checks: Data validation, each {"name", "critical", "passed", "sentence"}.
        data_docs: Path of the Data Docs, or "".
        settings: The settings in force, JSON-able.
        models: Every model that took part, members first, best utility first.
        ensemble: Metrics of the challenger on the test split, None when they are sealed.
        ensemble_by_locale: Locale -> the same for each locale.
        ensemble_intervals: Metric -> [low, high], 95 % interval over all locales; both None where too few queries move
            it.
        champion: Metrics of the champion it met on the test split, None when there was none or they are sealed.
        champion_version: Version of that champion, or "".
        confusion: 4 x 4 counts of the challenger on the test split, rows true, columns predicted, order E, S, C, I.
        by_class: Label letter -> {"precision", "recall", "f1", "support"} of the challenger on the test split, None
            where no pair tells it.
        utility_by_class: Member -> class -> SHAP share.
        utility_by_locale: Member -> locale -> SHAP share.
        near_copies: Sentences about models that are near copies of each other.
        interchangeable: Sentences about models that can stand for each other.
        mixed_up: Sentences about models whose columns seem to be in another order than E, S, C, I.
        noise: What a member of noise is credited with beside the members: {"share", "high" (exceeded in one of twenty
            re-fits), "refits"}; {} when no re-fits were made.
        tied: Neighbours in the ranking of members that re-fits do not tell apart, each [better, worse].
        contributions: What each member adds to each class's raw score, on some of the pairs that the aggregator learns
            from: {"members", "base", "values", "given"}, see `esci_tournament.tasks.ensemble.explanation`.
        shap: How the contributions agree with the package's own: {"rows", "gap", "version"}.
        selection: {"rule", "budget": {"memory_mib", "latency_ms"}, "used": {"memory_mib", "latency_ms"}, "path":
            [{"step", "action", "member", "metric", "sentence"}], "regret": float | None, "refits": int, "value",
            "value_error" (the validation metric of the members and its standard error over queries),
            "curve_memory": [[budget_mib, metric]], "curve_latency": [[budget_ms, metric]]}.
        shift: In `kfold`: model -> mean total variation between fold models' and served model's scores, in [0, 1].
        verdict: JSON of `esci_tournament.tasks.ensemble.verdict.Verdict`: {"outcome", "reason", "checks": [{"name",
            "passed", "value", "threshold", "sentence"}], ...}, as `esci_tournament.registry.sealing` tells it.
        decision: {"decision", "by", "reason"} or {} when none was made.
        ensemble_version: Version of the challenger in MLflow, or "".
        manifest: Digest of the manifest of the challenger's files, "" when it is not registered.
        promoted: Whether the challenger became champion.
        links: Title -> address or path (MLflow run, ledger, Data Docs, Prefect flow run).
        ensemble_calibration_error: Expected calibration error of the challenger on the test split, in [0, 1].
        ensemble_reliability: Its bins, each [mean confidence, accuracy, pairs].
        likeness: How alike every two models err, the most alike first: {"first", "second", "correlation",
            "agreement", "sentence"}.
        shapley: Member -> exact Shapley value of the game v(S) on the primary metric; {} with too many members.
        early_exit: JSON of `esci_tournament.tasks.ensemble.early_exit.EarlyExit` of the challenger; {} when it will
            not serve.
        awaits_review: Whether a person is to decide and has not yet.
        drift: JSON of `esci_tournament.tasks.data.drift.DriftReport` since the data of the last tournament; {} when
            none was measured.
        excluded: Candidate id -> why it is not on the bench, of a re-evaluation.
        differences: Id of a candidate or ensemble version -> in which way MLflow differed from its record, and what to
            do.
        sealed: Whether the numbers of the test split are left out, because the challenger may not serve.
        out_of_fold: Metrics of the challenger on the pairs that the aggregator learns from, each answered by folds that
            did not see its query; of 60,000 pairs at most. None in the summary of an earlier release.
        out_of_fold_by_locale: Locale -> the same for each locale.
        out_of_fold_confusion: 4 x 4 counts of the same answers, as `confusion`; no whole numbers, because the decision
            rule is estimated by two sets of answers.
        out_of_fold_by_class: The same as `by_class`.
        examples: Pairs that the aggregator learns from, as :func:`esci_tournament.tasks.report.examples.examples` picks
            them; {} where none are shown. No test pair is among them.
        review: Number of the verdict, by which `tournament review` names it; None where nobody was asked, and in the
            summary of an earlier release.
    """

    tournament: str
    started: str
    seconds: float
    machine: dict[str, Any]
    data: dict[str, Any]
    checks: list[dict[str, Any]]
    data_docs: str
    settings: dict[str, Any]
    models: list[ModelSummary]
    ensemble: Metrics | None
    ensemble_by_locale: dict[str, Metrics]
    ensemble_intervals: dict[str, list[float | None]]
    champion: Metrics | None
    champion_version: str
    confusion: list[list[int]]
    by_class: dict[str, dict[str, float | None]]
    utility_by_class: dict[str, dict[str, float]]
    utility_by_locale: dict[str, dict[str, float]]
    near_copies: list[str]
    selection: dict[str, Any]
    shift: dict[str, float]
    verdict: dict[str, Any]
    decision: dict[str, Any] = field(default_factory=dict)
    ensemble_version: str = ""
    promoted: bool = False
    links: dict[str, str] = field(default_factory=dict)
    ensemble_calibration_error: float | None = None
    ensemble_reliability: list[list[float]] = field(default_factory=list)
    likeness: list[dict[str, Any]] = field(default_factory=list)
    shapley: dict[str, float] = field(default_factory=dict)
    interchangeable: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    noise: dict[str, Any] = field(default_factory=dict)
    tied: list[list[str]] = field(default_factory=list)
    contributions: dict[str, Any] = field(default_factory=dict)
    shap: dict[str, Any] = field(default_factory=dict)
    early_exit: dict[str, Any] = field(default_factory=dict)
    awaits_review: bool = False
    drift: dict[str, Any] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    manifest: str = ""
    sealed: bool = False
    out_of_fold: Metrics | None = None
    out_of_fold_by_locale: dict[str, Metrics] = field(default_factory=dict)
    out_of_fold_confusion: list[list[float]] = field(default_factory=list)
    out_of_fold_by_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    examples: dict[str, Any] = field(default_factory=dict)
    review: int | None = None

    def to_json(self) -> str:
        """Return the summary as one JSON document, keys in the order of the fields.

        Unset `examples`, `review` and `curves` are left out, so that an earlier release reads what has none of them.
        """
        whole = asdict(self)
        for part, name in ((whole, "examples"), (whole, "review"), *((model, "curves") for model in whole["models"])):
            if not part[name]:
                del part[name]
        return json.dumps(whole, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Summary:
        """Return the summary that :meth:`to_json` wrote."""
        raw = json.loads(text)
        raw["models"] = [_model(entry) for entry in raw["models"]]
        for key in ("ensemble", "champion", "out_of_fold"):
            raw[key] = _metrics(raw.get(key))
        for key in ("ensemble_by_locale", "out_of_fold_by_locale"):
            raw[key] = _by_locale(raw.get(key))
        return cls(**raw)

    @classmethod
    def read(cls, path: Path) -> Summary:
        """Return the summary that is stored as JSON in a file."""
        return cls.from_json(path.read_text(encoding="utf-8"))


def _model(raw: dict[str, Any]) -> ModelSummary:
    for key in ("test", "blend"):
        raw[key] = _metrics(raw[key])
    for key in ("test_by_locale", "blend_by_locale"):
        raw[key] = _by_locale(raw.get(key))
    return ModelSummary(**raw)


def _metrics(raw: dict[str, Any] | None) -> Metrics | None:
    return Metrics(**raw) if raw else None


def _by_locale(raw: dict[str, Any] | None) -> dict[str, Metrics]:
    return {locale: Metrics(**one) for locale, one in (raw or {}).items()}
