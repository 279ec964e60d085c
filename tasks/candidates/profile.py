"""Measure what a candidate costs to serve, on the device that is at hand."""

from __future__ import annotations

import json
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from esci_tournament.registry.errors import CandidateError, UsageError
from esci_tournament.tasks.candidates.device import device_name, resolve_device
from esci_tournament.tasks.candidates.memory import peak_resident_bytes
from esci_tournament.tasks.families.protocol import Candidate

PAGE, LARGE_PAGE = 40, 1_000
_WARM_UP = 3
_PAGES = 20
_LARGE_PAGES = 3
_LARGE_SECONDS = 5.0
_ROUNDS = 3
_POLL_SECONDS = 0.001
_MIB = 2**20


@dataclass(frozen=True)
class MeasuredCost:
    """The cost of serving one candidate.

    Attributes:
        device: Where it was measured, such as "cpu (AMD EPYC 9B14)" or "cuda:0 (NVIDIA A100-SXM4-40GB)".
        kind: "cpu" or "gpu"; costs of different kinds are never added up.
        parameters: Parameters that serving needs.
        memory_mib: Weights and the peak of what scoring one page takes on top, in MiB (see :func:`profile`).
        milliseconds_per_page_p50: Median time to score one page of 40 pairs of one query.
        milliseconds_per_page_p95: 95th percentile of it.
        bytes_on_disk: What `save` writes.
        load_seconds: Time that `load` takes.
        page: Pairs per page.
        memory_mib_thousand: As memory_mib, for a page of 1,000 pairs; None, like all below, where it was not measured.
        milliseconds_per_thousand_p50: Median time to score 1,000 pairs of one query.
        milliseconds_per_thousand_p95: 95th percentile of it.
        flops_per_page: Floating-point operations of a page of 40, a multiply-add counted as two: matrix products,
            convolutions and attention, as torch.utils.flop_counter counts them. Element-wise operations, embedding
            look-ups and work outside torch (text, sparse matrices) are not in it. None when nothing of that kind
            ran in this process: no operation that is counted, or a model in a process of its own.
    """

    device: str
    kind: Literal["cpu", "gpu"]
    parameters: int
    memory_mib: float
    milliseconds_per_page_p50: float
    milliseconds_per_page_p95: float
    bytes_on_disk: int
    load_seconds: float
    page: int = PAGE
    memory_mib_thousand: float | None = None
    milliseconds_per_thousand_p50: float | None = None
    milliseconds_per_thousand_p95: float | None = None
    flops_per_page: float | None = None

    def to_json(self) -> str:
        """Return the cost as a JSON object, keys sorted; :meth:`from_json` reads it."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MeasuredCost:
        """Return the cost that :meth:`to_json` wrote.

        Args:
            text: A JSON object; keys of attributes with a default may be missing.

        Returns:
            The cost.

        Raises:
            UsageError: If the text is no such object.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UsageError(f"this is no cost: {text[:80]!r} ({error})") from error


def profile(candidate: Candidate, pairs: pd.DataFrame, products: pd.DataFrame, device: str = "cpu") -> MeasuredCost:
    """Measure a fitted candidate: save it, load it on the device, score pages of 40 pairs of one query.

    Time: 3 warm-up pages, then 3 rounds of 20 pages, each page another query; p50 and p95 of each round, and the median
    over the rounds, so that one disturbed round does not count. A page begins with the frames, so text, tokens and
    softmax are in it. Pages of 1,000 are scored one to three times, as many as begin within five seconds.

    Memory: the weights plus what scoring a page takes on top. On a GPU the weights are what loading allocates on the
    card, and a page takes torch.cuda.max_memory_allocated above that, work space of the libraries included; the CUDA
    context of the process and what torch's allocator keeps in reserve are not in it. On a CPU the weights are 4 bytes a
    parameter (parameters and buffers are float32), and the resident set is sampled every millisecond while all pages
    are scored once more, and its highest value is compared with the one before the first page ever scored. It counts
    what the allocator keeps, is good to a few MiB, and is a lower bound if an earlier peak of the process left memory
    to reuse. A candidate whose model is in another process reports what it holds there (`resident_bytes`), and that
    takes the place of the weights.

    Args:
        candidate: The fitted model. It is saved to a temporary folder and loaded from there.
        pairs: Pairs to make pages of: columns query, locale, product.
        products: The catalogue, columns of `Dataset.products`; `pairs["product"]` are its rows.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        The measured cost.

    Raises:
        CandidateError: If there is no pair to score, or the candidate cannot be saved, loaded or scored.
        UsageError: If the machine has no such device.
    """
    if pairs.empty:
        raise CandidateError("the cost cannot be measured: there is no pair to score")
    where = resolve_device(device)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        candidate.save(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        started, empty = time.perf_counter(), _allocated_bytes(where)
        model = type(candidate).load(folder, str(where))
        _wait(where)
        load_seconds = time.perf_counter() - started
        pages, large = _pages(pairs, PAGE, _PAGES), _pages(pairs, LARGE_PAGE, _LARGE_PAGES)
        elsewhere = model.resident_bytes
        # A model that another library puts on the card is none that torch knows of
        weights = elsewhere() or _allocated_bytes(where) - empty or 4 * model.parameters()

        def score(page: pd.DataFrame) -> None:
            model.predict_proba(page, products)
            _wait(where)

        first = _allocated_bytes(where) if where.type == "cuda" else _resident_bytes() + elsewhere()
        growth = _growth(score, pages, where, elsewhere, first)
        p50, p95 = _milliseconds(score, pages)
        flops = _flops(score, pages[0])
        times: list[float] = []
        large_growth = _growth(lambda page: _timed(score, page, times), large, where, elsewhere, first)
    return MeasuredCost(
        device=f"{where} ({device_name(where)})",
        kind="gpu" if where.type == "cuda" else "cpu",
        parameters=model.parameters(),
        memory_mib=round((weights + growth) / _MIB, 3),
        milliseconds_per_page_p50=round(p50, 4),
        milliseconds_per_page_p95=round(p95, 4),
        bytes_on_disk=size,
        load_seconds=round(load_seconds, 4),
        memory_mib_thousand=round((weights + max(growth, large_growth)) / _MIB, 3),
        milliseconds_per_thousand_p50=round(float(np.percentile(times, 50)), 4),
        milliseconds_per_thousand_p95=round(float(np.percentile(times, 95)), 4),
        flops_per_page=flops,
    )


def _timed(score: Callable[[pd.DataFrame], None], page: pd.DataFrame, times: list[float]) -> None:
    """Score a page and note the milliseconds it took, unless the pages before took long enough."""
    if sum(times) < 1000 * _LARGE_SECONDS:
        started = time.perf_counter()
        score(page)
        times.append(1000 * (time.perf_counter() - started))


def _flops(score: Callable[[pd.DataFrame], None], page: pd.DataFrame) -> float | None:
    with FlopCounterMode(display=False) as counter:
        score(page)
    return float(counter.get_total_flops()) or None


def _pages(pairs: pd.DataFrame, size: int, count: int) -> list[pd.DataFrame]:
    """Return pages of exactly `size` pairs of one query, over the products that the pairs name, in order."""
    queries = pairs.drop_duplicates(["query", "locale"]).head(count)
    products = pairs["product"].to_numpy()
    pages = []
    for number in range(count):
        chosen = products[(number * size + np.arange(size)) % len(products)]
        row = queries.iloc[number % len(queries)]
        pages.append(pd.DataFrame({"query": row["query"], "locale": row["locale"], "product": chosen}))
    return pages


def _milliseconds(score: Callable[[pd.DataFrame], None], pages: list[pd.DataFrame]) -> tuple[float, float]:
    for page in pages[:_WARM_UP]:
        score(page)
    rounds = []
    for _ in range(_ROUNDS):
        times = []
        for page in pages:
            started = time.perf_counter()
            score(page)
            times.append(1000 * (time.perf_counter() - started))
        rounds.append(np.percentile(times, [50, 95]))
    p50, p95 = np.median(rounds, axis=0)
    return float(p50), float(p95)


def _growth(
    score: Callable[[pd.DataFrame], None],
    pages: list[pd.DataFrame],
    device: torch.device,
    elsewhere: Callable[[], int],
    first: int,
) -> int:
    """Return the bytes that scoring takes at its peak above `first` bytes, on the card or of the resident set."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        for page in pages[: max(_WARM_UP, _LARGE_PAGES)]:
            score(page)
        return torch.cuda.max_memory_allocated(device) - first
    with _ResidentPeak(elsewhere, first) as peak:
        for page in pages:
            score(page)
    return peak.growth


class _ResidentPeak:
    """Sample this process's resident set, and what is held elsewhere, from a thread.

    `growth` is the highest value above `first`, in bytes, once the context has ended.
    """

    def __init__(self, elsewhere: Callable[[], int], first: int) -> None:
        self._elsewhere, self._first = elsewhere, first

    def __enter__(self) -> _ResidentPeak:
        self._highest = self._held()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.growth = max(0, max(self._highest, self._held()) - self._first)

    def _watch(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self._highest = max(self._highest, self._held())

    def _held(self) -> int:
        return _resident_bytes() + self._elsewhere()


def _allocated_bytes(device: torch.device) -> int:
    """Return what torch has allocated on a card; 0 for a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:  # no /proc, as on macOS: the high-water mark of the process
        return peak_resident_bytes()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
