"""Follows the ledger: a promoted ensemble is copied, loaded and warmed while the old one serves, then replaces it."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from esci_tournament.deployments.scorer.catalogue import ProductCatalogue, Text, import_products
from esci_tournament.deployments.scorer.champion import Card, ServingChampion
from esci_tournament.deployments.scorer.compute.dispatcher import ServingContext
from esci_tournament.deployments.scorer.compute.fleet import Fleets
from esci_tournament.deployments.scorer.compute.pairs import Pairs
from esci_tournament.deployments.scorer.copies import Copies
from esci_tournament.deployments.scorer.newer import NewerData
from esci_tournament.deployments.scorer.preparation import Await, Preparation
from esci_tournament.registry.attestation import UNATTESTED, Attested, attested, tell_difference
from esci_tournament.registry.errors import BusyError, IntegrityError, NotFoundError, StoreError, TournamentError
from esci_tournament.registry.records import Promotion, Tournament
from esci_tournament.registry.workspace import Workspace
from esci_tournament.tasks.data.dataset import LOCALES

_log = logging.getLogger("scorer")
_PAGE, _WARM_PAGES = 40, 3
_WARM_UP_SECONDS = 120.0
_ANY = Text("", "desk lamp, red", "", "", "", "")


@dataclass
class Following:
    """The follower's state, for /readyz.

    Attributes:
        looked: when the ledger was last read, a moment of `time.monotonic`, 0 for never.
        trouble: message of the last failure, "" when there was none since.
        refused: title of a champion that failed its warm-up -> reason.
    """

    looked: float = 0.0
    trouble: str = ""
    refused: dict[str, str] = field(default_factory=dict)


class Follower:
    """Looks at the ledger every `swap_interval_s` seconds, in a thread of its own.

    Args:
        workspace: has the ledger and MLflow.
        shared: settings, metrics and the count of arriving requests, for all champions.
        fleets: makes each champion's replicas.
        preparation: puts a warm champion's most frequent labels into the cache.
        take: called in the event loop with a champion, which it lets serve; returns an event that is set when the one
            before it has closed, None when there was none.
        wait_for: called with a coroutine, which it runs in the event loop; returns the coroutine's result.
        catalogue: folder of a catalogue for all champions; default: the data set of each champion's tournament.

    Attributes:
        state: what `/readyz` shows.
    """

    def __init__(
        self,
        workspace: Workspace,
        shared: ServingContext,
        fleets: Fleets,
        preparation: Preparation,
        take: Callable[[ServingChampion], threading.Event | None],
        wait_for: Await,
        catalogue: Path | None = None,
    ) -> None:
        self._workspace, self._shared, self._fleets = workspace, shared, fleets
        self._preparation, self._put_in_service, self._wait_for = preparation, take, wait_for
        self._own_catalogue = catalogue
        self.state = Following()
        self._newer = NewerData(workspace, fleets, self._not_refreshed)
        self._found: dict[tuple[str, int], tuple[Card, Tournament]] = {}  # by name and version; they never change
        self._serving: Card | None = None
        self._refused: tuple[int, Card] | None = None  # the promotion of the champion that was refused
        self._catalogue: tuple[Path, ProductCatalogue] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="follow the ledger")

    @cached_property
    def copies(self) -> Copies:
        """The copies of champions in the home."""
        return Copies(self._workspace.folder("serving", "champions"), lambda card: self._attested(card).manifest)

    def start(self) -> None:
        """Start the thread that follows the ledger."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop; a champion that is being loaded is not waited for."""
        self._stop.set()

    def look(self) -> bool:
        """Read the ledger once, and load and activate the champion that it names.

        When the ledger or MLflow cannot be read, or the champion fails its warm-up, the reason is recorded in
        :attr:`state`; if nothing serves yet, the copy that served last on this machine is taken.

        Returns:
            Whether another champion serves now.
        """
        begun = time.monotonic()
        try:
            standing = self._workspace.ledger.standing(self._workspace.settings.ensemble_name)
            promotion = standing.champion
            wanted = self._card(promotion) if promotion is not None else None
        except (StoreError, BusyError, IntegrityError) as error:
            self._trouble("ledger", error)
            return self._serving is None and self._take_last_good()
        self.state.looked, self.state.trouble = time.monotonic(), "; ".join(map(str, standing.invalid))
        self._shared.metrics.last_look.set(time.time())
        if promotion is None or wanted is None or wanted == self._serving or (promotion.id, wanted) == self._refused:
            return False
        try:
            folder = self._folder(wanted)
        except (StoreError, NotFoundError, BusyError) as error:
            self._trouble("mlflow", error)
            return self._serving is None and self._take_last_good()
        except IntegrityError as error:  # MLflow holds other files than those that were approved
            self._refused = promotion.id, wanted
            self._refuse(wanted, error)
            return self._serving is None and self._take_last_good()
        taken = self._take(wanted, folder, begun)
        self._refused = None if taken else (promotion.id, wanted)
        # When the first champion of this process is refused, the one that served on this machine before is taken
        return taken or (self._serving is None and self._take_last_good())

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:  # whatever it is, the champion that serves goes on
                _log.exception("looking for a new champion failed")
                self._shared.metrics.looks_failed.labels("other").inc()
            self._preparation.remember()
            self._stop.wait(self._shared.settings.swap_interval_s)

    def _card(self, promotion: Promotion) -> Card:
        """Return the card of what should serve, by the ledger."""
        base, held = self._found.get((promotion.ensemble, promotion.version)) or self._find(promotion)
        return self._newer.card_of(base, held, self._serving, self.copies)

    def _find(self, promotion: Promotion) -> tuple[Card, Tournament]:
        ledger, name, version = self._workspace.ledger, promotion.ensemble, promotion.version
        record = next((one for one in ledger.ensembles() if (one.name, one.version) == (name, version)), None)
        if record is None:
            raise StoreError(f"the ledger names {name}/{version} as champion, but no tournament that built it")
        held = next(one for one in ledger.tournaments() if one.tournament == record.tournament)
        card = Card(name, version, record.tournament, held.data_version, tuple(record.payload.get("members", ())))
        card = replace(card, manifest=self._attested(card).digest)
        if not card.manifest:
            _log.warning("%s %s", card.id, UNATTESTED)
        self._found[name, version] = card, held
        return card, held

    def _attested(self, card: Card) -> Attested:
        return attested(self._workspace.ledger, card.name, card.version)

    def _folder(self, card: Card) -> Path:
        found = self.copies.find(card.name, card.version, card.data_version if card.refreshed else "")
        if found is not None and found[1] == card:
            try:
                return self.copies.checked(card)
            except IntegrityError as error:
                self._discard(card, error)
                if card.refreshed:  # made anew from the champion as it was registered, at one of the next looks
                    raise StoreError(f"{error}; it is made anew") from error
        return self.copies.fetch(self._workspace.models, card)

    def _discard(self, card: Card, error: StoreError | IntegrityError) -> None:
        """Remove a copy whose files have changed, and tell."""
        self._trouble("copies", error)
        if isinstance(error, IntegrityError):
            self._tell_difference(card, error)
        self.copies.discard(card)

    def _tell_difference(self, card: Card, error: IntegrityError) -> None:
        try:
            tell_difference(self._workspace.ledger, card.id, str(error), f"scorer {self._workspace.ledger.who}")
        except (StoreError, BusyError) as failed:
            self._trouble("ledger", failed)

    def _take_last_good(self) -> bool:
        """Load the champion that served last on this machine; return whether it serves."""
        found = self.copies.last_good()
        if found is None or found[1].title in self.state.refused:
            return False
        card = found[1]
        try:
            folder = self.copies.checked(card)
        except (StoreError, IntegrityError) as error:
            self._discard(card, error)
            return False
        _log.warning("serving the local copy of %s, which served last", card.title)
        return self._take(card, folder, time.monotonic())

    def _take(self, card: Card, folder: Path, begun: float) -> bool:
        products = None
        try:
            products = self._products(card)
            champion = self._ready(card, folder, products)
        except Exception as error:  # a model may raise anything
            self._refuse(card, error)
            return False
        if self._serving is None:
            # Excludes all modules imported so far from garbage collection, which would take tens of ms each time
            gc.collect()
            gc.freeze()
        self.state.refused.pop(card.title, None)
        freed = self._wait_for(self._activate(champion))
        self._serving = card
        metrics = self._shared.metrics
        if freed is not None:
            (metrics.refreshes if card.refreshed else metrics.swaps).inc()
        metrics.swap_seconds.observe(time.monotonic() - begun)
        metrics.champion.labels(card.name).set(card.version)
        _log.info("champion %s serves, %.1f s after it was noticed", card.title, time.monotonic() - begun)
        try:
            self.copies.served(card)
        except StoreError as error:
            self._trouble("copies", error)
        threading.Thread(target=self._embed, args=(champion,), daemon=True, name="product vectors").start()
        return True

    def _ready(self, card: Card, folder: Path, products: Path | None) -> ServingChampion:
        """Return a champion that is loaded and warm, and knows the labels asked for most."""
        catalogue = self._catalogue_of(card, products)
        retrieved = self._preparation.retrieved()
        fleet = self._fleets.fleet(folder, products, card.data_version, retrieved, lambda: self.copies.checked(card))
        try:
            champion = ServingChampion.load(folder, card, catalogue, fleet, self._shared)
        except BaseException:
            fleet.close()
            raise
        try:
            patient = self._wait_for(champion.recruit(patient=True))
            pages = warm_pages(catalogue)
            for page in pages:
                champion.try_out(self._wait_for(champion.scores(page, _WARM_UP_SECONDS)))
            self._preparation.ready(champion, self._wait_for, lambda: not self._stop.is_set())
            self._wait_for(champion.start_replicas([patient], pages[0], _WARM_UP_SECONDS))
        except BaseException:
            self._wait_for(_closed(champion))
            raise
        return champion

    async def _activate(self, champion: ServingChampion) -> threading.Event | None:
        return self._put_in_service(champion)

    def _embed(self, champion: ServingChampion) -> None:
        """Have bi-encoders' product vectors computed while the champion serves; vectors that are kept are found."""
        try:
            for name, number in self._wait_for(champion.fleet.embed()).items():
                _log.info("%s holds the vectors of %d products", name, number)
        except Exception:  # it serves without them
            if not self._stop.is_set():
                _log.exception("product vectors of %s cannot be computed", champion.card.id)

    def _refuse(self, card: Card, error: Exception) -> None:
        reason = str(error) if isinstance(error, TournamentError) else f"{type(error).__name__}: {error}"
        self.state.refused[card.title] = reason
        self._shared.metrics.swaps_refused.inc()
        _log.error("champion %s is refused: %s; the one before it goes on serving", card.title, reason)
        self.copies.discard(card)  # what is promoted again under this version is copied again
        if card.refreshed:
            self._newer.give_up(card)
        if isinstance(error, IntegrityError):
            self._tell_difference(card, error)
        try:
            self._workspace.ledger.record_event("scorer_refused", card.id, payload={"reason": reason[:2000]})
        except (StoreError, BusyError) as failed:
            self._trouble("ledger", failed)

    def _not_refreshed(self, why: str) -> None:
        self.state.trouble = why
        self._shared.metrics.looks_failed.labels("newer data").inc()

    def _trouble(self, what: str, error: Exception) -> None:
        if self.state.trouble != str(error):
            _log.warning("%s", error)
        self.state.trouble = str(error)
        self._shared.metrics.looks_failed.labels(what).inc()

    def _catalogue_of(self, card: Card, file: Path | None) -> ProductCatalogue:
        """Return the catalogue of a champion; the one before it when its data set is not on this machine."""
        if file is None:
            _log.warning("no catalogue: the data set of %s is not in this home (see --catalogue)", card.tournament)
            return self._catalogue[1] if self._catalogue else ProductCatalogue.empty()
        if self._catalogue is None or self._catalogue[0] != file:
            self._catalogue = file, ProductCatalogue.open(file, self._workspace.folder("serving", "catalogues"))
        return self._catalogue[1]

    def _products(self, card: Card) -> Path | None:
        if self._own_catalogue is not None:
            return import_products(self._own_catalogue, self._workspace.folder("serving", "catalogues"))
        stages = self._workspace.stages
        folder = stages.find(stages.key("load", version=card.data_version))
        return folder / "products.arrow" if folder else None


async def _closed(champion: ServingChampion) -> None:
    champion.close()


def warm_pages(catalogue: ProductCatalogue) -> list[Pairs]:
    """Return pages to warm up with: up to three of up to 40 products, then one of a single product.

    Args:
        catalogue: where the products are taken from; an empty one gives pages of a made-up product.

    Returns:
        The pages; the query of each is the first words of a product's title, and locales alternate.
    """
    texts = catalogue.texts(catalogue.sample(_PAGE * _WARM_PAGES)) or [_ANY] * _PAGE
    pages = [texts[start : start + _PAGE] for start in range(0, len(texts), _PAGE)]
    pages.append(texts[:1])
    return [
        Pairs(" ".join(page[0].title.split()[:3]) or "lamp", LOCALES[number % len(LOCALES)], page)
        for number, page in enumerate(pages)
    ]
