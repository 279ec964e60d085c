"""Cheap repeated looks at the model registry: which candidate versions are new, or were corrected?

MLflow filters neither by moment of creation nor by the absence of a tag, reading 10,000 versions takes seconds, and
tagging changes no time stamp. So each look asks three small questions (how many versions have a spec? which models
changed last? who is refused?), and reads more only as far as the answers are not explained by what is known.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from esci_tournament.registry.models import Models
from esci_tournament.registry.tracking import name_is
from esci_tournament.registry.versions import SPEC_TAG, STATE_TAG, CandidateVersion, RegisteredVersion, as_candidate

_HAS_SPEC = f"tags.`{SPEC_TAG}` != ''"
_REFUSED = f"tags.`{STATE_TAG}` = 'refused'"
_MODELS, _NEWEST, _REFUSALS, _OVERFLOW = 20, 50, 200, 1000  # rows that the questions ask for
_PAGE = 500  # versions that a full look reads at a time


@dataclass(frozen=True)
class Sighting:
    """A version with a spec tag, as the registry had it.

    Attributes:
        version: The version in MLflow.
        digest: Of the content of its spec tag: the first 32 hexadecimal digits of the SHA-256.
    """

    version: RegisteredVersion
    digest: str

    @property
    def id(self) -> str:
        """`name/version`."""
        return f"{self.version.name}/{self.version.version}"

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags when it was read."""
        return self.version.tags

    def candidate(self) -> CandidateVersion:
        """Return it as a candidate, its spec parsed; no metrics are read."""
        return as_candidate(self.version, {})


class Poll:
    """Looks at one registry and remembers what it has seen.

    Args:
        models: The registry.
        full_look_s: Seconds between two looks at everything, whatever the cheap ones find.

    Attributes:
        full_look_at: When everything was last looked at, Unix time; None before the first such look.

    Raises:
        StoreError: By `look`, when MLflow cannot be read; the next look then is a full one.
    """

    def __init__(self, models: Models, full_look_s: float = 900.0) -> None:
        self._models, self._tracking, self._full_look_s = models, models.tracking, full_look_s
        self.full_look_at: float | None = None
        self.forget()

    def forget(self) -> None:
        """Make the next look a full one that returns every version again, as when what was seen was not dealt with."""
        self._seen: dict[str, dict[str, str]] = {}  # model -> version -> digest of the spec tag
        self._token: str | None = None  # of the last page of the last full look
        self._offset = 0  # versions before that page
        self._changed: dict[str, int] = {}  # model -> when it changed, of those that changed last
        self._due = 0.0

    def look(self, named: Collection[str] = ()) -> list[Sighting]:
        """Return the versions that are new or whose spec tag changed since the last look.

        Args:
            named: Ids of versions that are said to have changed, as by a webhook; their models are read in any case.

        Returns:
            The versions, the first to be created at the beginning.

        Raises:
            StoreError: If MLflow cannot be read; the next look then is a full one.
        """
        try:
            with self._tracking.guard("look for candidates"):
                found = self._everything() if time.monotonic() >= self._due else self._changes(named)
        except Exception:
            self.forget()
            raise
        return sorted(found, key=lambda one: (one.version.creation_timestamp, one.id))

    def _everything(self) -> list[Sighting]:
        self._changed = self._last_changed()
        versions, self._token, self._offset = self._tracking.search_pages(_HAS_SPEC, _PAGE, ["name ASC"])
        known, self._seen = self._seen, {}
        found = self._note(versions)
        self._due, self.full_look_at = time.monotonic() + self._full_look_s, time.time()
        return [one for one in found if known.get(one.version.name, {}).get(str(one.version.version)) != one.digest]

    def _changes(self, named: Collection[str]) -> list[Sighting]:
        known = self._count()
        if known - self._offset > _OVERFLOW - _PAGE:  # too many came since to be counted in one page
            return self._everything()
        more = self._beyond(known)
        found = []
        changed = self._last_changed()
        names = {name for name, at in changed.items() if self._changed.get(name) != at}
        if len(names) >= _MODELS:  # perhaps there are more
            return self._everything()
        self._changed = changed
        for name in sorted(names | {id.rpartition("/")[0] for id in named}):
            if "'" in name and '"' in name:  # it cannot be said in a filter; a look at everything finds it
                continue
            here = self._tracking.search(name_is(name))
            self._seen.pop(name, None) if not here else self._drop_missing(name, here)
            found += self._note(one for one in here if one.tags.get(SPEC_TAG))
        found += self._note(self._tracking.search_some(_REFUSED, _REFUSALS))
        if more is None and self._count() >= known:  # deleted, and not in a model that changed
            return self._everything()
        if more and self._count() < known + more:  # tagged long after they were made
            found += self._note(self._tracking.search_some(_HAS_SPEC, _NEWEST, ["creation_timestamp DESC"]))
            if self._count() < known + more:
                return found + self._everything()
        return found

    def _count(self) -> int:
        return sum(map(len, self._seen.values()))

    def _beyond(self, known: int) -> int | None:
        """Return how many more versions have a spec than those known; None when there are fewer."""
        rows = len(self._tracking.search_some(_HAS_SPEC, _OVERFLOW, ["name ASC"], self._token))
        more = self._offset + rows - known
        return more if more >= 0 else None

    def _last_changed(self) -> dict[str, int]:
        models = self._tracking.client.search_registered_models(
            max_results=_MODELS, order_by=["last_updated_timestamp DESC"]
        )
        return {model.name: model.last_updated_timestamp for model in models}

    def _drop_missing(self, name: str, here: Iterable[RegisteredVersion]) -> None:
        with_spec = {str(one.version) for one in here if one.tags.get(SPEC_TAG)}
        kept = {number: digest for number, digest in self._seen.get(name, {}).items() if number in with_spec}
        self._seen[name] = kept

    def _note(self, versions: Iterable[RegisteredVersion]) -> list[Sighting]:
        """Remember versions, and return those that are new or changed."""
        found = []
        for version in versions:
            digest = tag_digest(version)
            numbers = self._seen.setdefault(version.name, {})
            if numbers.get(str(version.version)) != digest:
                numbers[str(version.version)] = digest
                found.append(Sighting(version, digest))
        return found


def tag_digest(version: RegisteredVersion | CandidateVersion) -> str:
    """Return a digest of the content of a version's spec tag, 32 hexadecimal digits."""
    return hashlib.sha256(version.tags.get(SPEC_TAG, "").encode()).hexdigest()[:32]
