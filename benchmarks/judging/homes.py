"""Lives of homes in which no challenger is ever better: their data moves, or somebody climbs on what is published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.harness import Figure, figure
from benchmarks.judging.hopeless import hopeless
from benchmarks.judging.null_worlds import Run
from benchmarks.judging.readings import PAGE, Page
from esci_tournament.tasks.ensemble.case import JudgeSettings
from esci_tournament.tasks.ensemble.judge import judge
from esci_tournament.tasks.ensemble.spending import History, look_at

LOOKS, QUERIES = 50, 300
_PRODUCTS = 60  # where products share errors: 40 pairs each
ALPHA = 0.05
_PROBES, _ALIKE = 40, 0.9  # an adversary's looks at random, and how near its challengers are to the champion


@dataclass(frozen=True)
class Life:
    """What happens to the test pairs from one look to the next.

    Attributes:
        new: share of the queries that are new at each look.
        numbered: whether an export numbers its rows anew each time, so that ids say that all pairs are new.
    """

    new: float = 0.0
    numbered: bool = False


LIVES = {
    "the same pairs": Life(),
    "numbered anew each time": Life(numbered=True),
    "a twentieth new each time": Life(0.05),
    "half new each time": Life(0.5),
    "all new each time": Life(1.0),
}


def figures(seed: int, quick: bool, run: Run) -> list[Figure]:
    """Return how many homes without any better challenger promote one within 50 looks.

    Args:
        seed: of all homes.
        quick: few homes.
        run: maps a function over numbers, in processes.
    """
    found = []
    for name, life in LIVES.items():
        homes = 6 if quick else 1000 if life.new == 0.5 else 400
        results = np.array(run(partial(moving, seed, life), range(homes), f"homes, {name}"))
        ours, before = results.mean(axis=0)
        title = f"test pairs: {name}: {homes} homes that promote within {LOOKS} looks"
        found.append(figure(title, ours, "share", "<= 0.05", "looks begin anew where half is new", before))
    homes = 6 if quick else 400
    results = np.array(run(partial(shared, seed), range(homes), "homes in which products share errors"))
    ours, blind = results.mean(axis=0)
    title = f"test pairs: the same, products share errors: {homes} homes that promote within {LOOKS} looks"
    found.append(figure(title, ours, "share", "<= 0.05", "products ignored", blind))
    homes = 6 if quick else 1000
    results = np.array(run(partial(climbed, seed), range(homes), "homes with an adversary"))
    sealed, told = results.mean(axis=0)
    title = f"an adversary climbs on what is published: {homes} homes that promote within {LOOKS} looks"
    return [*found, figure(title, sealed, "share", "<= 0.05", "test numbers are published", told)]


def moving(seed: int, life: Life, number: int) -> tuple[bool, bool]:
    """Return whether a home promotes an equal challenger: by its one budget, and where looks could begin anew."""
    random = np.random.default_rng([seed, 21, number, int(100 * life.new), life.numbered])
    ours, anew = [False, 0.0], [False, 0]
    fresh = max(int(life.new * QUERIES), 1)
    ages: list[float] = []  # share of today's pairs that each earlier look saw
    page = Page(random, QUERIES)
    champion, common = None, page.noise()
    for look in range(LOOKS):
        if life.new and look:
            page, common = renewed(page, common, fresh)
            ages = [max(age - life.new, 0.0) for age in ages]
            champion = None
        if champion is None:
            champion = page.log_probabilities(common)
        alike = random.uniform(0.3, 0.95)
        challenger = page.log_probabilities(np.sqrt(alike) * common + np.sqrt(1 - alike) * page.noise())
        before = History(look, min(sum(ages), look), float(ours[1]))
        level = look_at(before, ALPHA).level
        ours[1] += level
        if life.numbered or life.new >= 0.5:  # the rule of the release before
            anew[1] = 0
        if not ours[0]:
            ours[0] = promoted(page, challenger, champion, before, number)
        if not anew[0]:
            anew[0] = promoted(page, challenger, champion, History(int(anew[1])), number)
        anew[1] += 1
        ages.append(1.0)
        if ours[0] and anew[0]:
            break
    return bool(ours[0]), bool(anew[0])


def renewed(page: Page, common: np.ndarray, fresh: int) -> tuple[Page, np.ndarray]:
    """Return the page with its first queries gone and as many new ones behind, and the champion's noise there."""
    behind = Page(page.random, fresh)
    return page.followed_by(behind, fresh), np.concatenate([common[fresh * PAGE :], behind.noise()])


def shared(seed: int, number: int) -> tuple[bool, bool]:
    """Return whether a home promotes an equal challenger where products share errors: by the judge, and without them.

    Probabilities show what products share more than labels do: log loss is compared at each look as well.
    """
    random = np.random.default_rng([seed, 23, number])
    page = Page(random, QUERIES, _PRODUCTS)
    own, found = page.noise(), [False, False]
    champion = page.log_probabilities(own)
    for look in range(LOOKS):
        alike = random.uniform(0.3, 0.95)
        challenger = page.log_probabilities(np.sqrt(alike) * own + np.sqrt(1 - alike) * page.noise())
        case = page.case(challenger, champion, History(look))
        if hopeless(case, look_at(case.before, ALPHA).level):
            continue
        for place, one in enumerate((case, replace(case, recurring=None))):
            if not found[place]:
                found[place] = judge(one, JudgeSettings(threads=1, seed=number)).outcome == "promote"
    return found[0], found[1]


def climbed(seed: int, number: int) -> tuple[bool, bool]:
    """Return whether an adversary gets an equal challenger promoted, with test numbers sealed and with them told.

    Each of its challengers is as good as the champion. Where numbers are told it tries at random first, and then adds
    up what it tried, weighted by the falls of log loss that were published: so it goes where the luck of this test
    split is. Where they are sealed the verdicts, each of them a refusal, say nothing that it could add up by.
    """
    found = []
    for told in (False, True):
        random = np.random.default_rng([seed, 22, number])
        page = Page(random, QUERIES)
        own = page.noise()
        champion, promotes = page.log_probabilities(own), False
        tries: list[np.ndarray] = []
        published: list[float] = []
        for look in range(LOOKS):
            tried = page.noise()
            if told and look >= _PROBES:
                direction = np.tensordot(np.array(published) - np.mean(published), tries, axes=1)
                tried = np.sqrt(0.95) * direction / np.sqrt((direction**2).mean()) + np.sqrt(0.05) * tried
            challenger = page.log_probabilities(np.sqrt(_ALIKE) * own + np.sqrt(1 - _ALIKE) * tried)
            if look < _PROBES:
                tries.append(tried)
                published.append(page.fall_of_loss(challenger, champion))
            if promotes := promoted(page, challenger, champion, History(look), number):
                break
        found.append(promotes)
    return found[0], found[1]


def promoted(page: Page, challenger: np.ndarray, champion: np.ndarray, before: History, seed: int) -> bool:
    """Return whether the judge promotes; it is asked only where its answer is open, because it takes a while."""
    case = page.case(challenger, champion, before)
    if hopeless(case, look_at(before, ALPHA).level):
        return False
    return judge(case, JudgeSettings(threads=1, seed=seed)).outcome == "promote"
