"""Texts and documents of strangers: each is either understood or refused by an error of ours, in bounded time."""

from __future__ import annotations

import socket
import string
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from esci_tournament.deployments.browser_login import _token
from esci_tournament.deployments.cli.policy import _parsed
from esci_tournament.deployments.scorer.compute.wire import Inbox, pack, receive
from esci_tournament.deployments.scorer.keys import Keys
from esci_tournament.deployments.scorer.schemas import ScoreRequest
from esci_tournament.deployments.stack.logins import make_login, path_of, take_login
from esci_tournament.deployments.webhook import Guard, sign, version_of
from esci_tournament.registry.errors import UsageError
from esci_tournament.registry.foreign import read_json
from esci_tournament.registry.plugins import spec_class
from esci_tournament.registry.policies import changed_policy
from esci_tournament.registry.policy import NAMES, Policy
from esci_tournament.registry.settings import Settings, read_settings
from esci_tournament.registry.specs import parse_spec
from esci_tournament.tasks.data.relations import relation_type
from tests.fuzz.foreign import ANYTHING, ODD, altered, documents, fuzzed, lawful, mutations, rarely

SEEN = {"trained_on": "other_queries", "provenance": "somebody else trained it"}
RECIPE = {"epochs": 2, "learning_rate": 2e-5, "max_length": 64, "field_tokens": {"title": 20}, "locales": ["us"]}
SPECS: list[dict[str, Any]] = [
    {"family": "language_model", "name": "a", "checkpoint": "hub/model", "recipe": RECIPE, "seed": 1},
    {"family": "language_model", "name": "a", "architecture": "electra", "recipe": {"layers": 2, "vocabulary": 400}},
    {"family": "graph_network", "name": "b", "architecture": "gcn", "relation": "clicks", "recipe": {"fanout": 4}},
    {"family": "scores", "name": "c", "file": "/f.parquet"} | SEEN,
    {"family": "pyfunc", "name": "d", "model": "/m"} | SEEN,
]
EVENT = {
    "entity": "model_version",
    "action": "created",
    "data": {"name": "m", "version": "3", "key": "k", "value": "v"},
}
PAGE = {"query": "lamp", "locale": "us", "products": [{"id": "B1"}, {"title": "x"}], "want": "labels", "deadline_ms": 5}
HEADERS = st.text(max_size=40) | st.sampled_from(["v1,", "-1", "9" * 15, "9" * 5000, "1e9", "\u0664", "nan"])


@given(documents(SPECS[0]))
@fuzzed
def test_json_of_a_tag(text: str) -> None:
    """R1.1, R2.1, R2.2, R2.5"""
    with lawful(ValueError):
        read_json(text)


@given(st.sampled_from(SPECS).flatmap(altered))
@fuzzed
def test_specs(content: Any) -> None:
    """R2.8, R2.9, R2.11"""
    with lawful():
        parse_spec(content if isinstance(content, dict) else {"family": content})


def test_the_specs_that_are_changed_are_good_ones() -> None:
    assert [parse_spec(one).name for one in SPECS] == ["a", "a", "b", "c", "d"]


@given(st.text(max_size=30) | st.sampled_from(["os:system", "../x", "click", "CLICK", "\ud800"]))
@fuzzed
def test_names_of_families_and_relations(name: str) -> None:
    """R2.13"""
    with lawful():
        spec_class(name)
    with lawful():
        relation_type(name)


TOML = (
    ODD
    | st.text(max_size=80)
    | st.builds(
        lambda name, value: f"{name} = {value}\n",
        st.sampled_from(sorted(Settings.model_fields)),
        ODD
        | st.text(max_size=20)
        | st.integers().map(str)
        | st.sampled_from(["[" * 5000, "[" * 900 + "]" * 900, "{a=" * 900]),
    )
)


@given(content=TOML.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60))
@fuzzed
def test_a_settings_file(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tournament.toml").write_bytes(content)
    with lawful():
        read_settings()


VALUES = (ODD | st.text(max_size=30)).filter(lambda text: "\x00" not in text and text.isascii())


@given(name=st.sampled_from(sorted(Settings.model_fields)), value=VALUES)
@fuzzed
def test_a_setting_in_the_environment(name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv(f"TOURNAMENT_{name.upper()}", value)
        with lawful():
            read_settings()


@given(name=st.sampled_from(sorted(NAMES)) | st.text(max_size=10), value=ODD | st.text(max_size=30))
@fuzzed
def test_arguments_of_a_policy(name: str, value: str) -> None:
    with lawful():
        changed_policy(Policy.of(Settings()), {name: _parsed(name, value)})


@given(
    HEADERS, HEADERS, HEADERS, documents(EVENT).map(lambda text: text.encode("utf-8", "surrogatepass")), st.booleans()
)
@fuzzed
def test_webhooks(signature: str, timestamp: str, delivery: str, body: bytes, genuine: bool) -> None:
    """W1: bodies of a genuine sender too, whose events come from whoever registers."""
    guard = Guard("secret", 300)
    if genuine:
        timestamp, delivery = str(int(time.time())), "id"
        signature = sign("secret", delivery, timestamp, body)
    complaint = guard.complaint(signature.encode("utf-8", "replace").decode(), timestamp, delivery, body)
    assert bool(complaint) is not genuine
    found = version_of(body)
    assert found is None or "/" in found


@given(
    token=st.text(max_size=60), body=documents({"token": "x"}).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@fuzzed
def test_login_links(token: str, body: bytes, tmp_path: Path) -> None:
    good = make_login(tmp_path)
    assert not take_login(tmp_path, token)
    assert not take_login(tmp_path, _token(body))
    assert take_login(tmp_path, good)


@given(
    st.text(max_size=60) | st.sampled_from(["http://[", "//[::1", "http://a/\ud800", "javascript:alert(1)", "//evil"])
)
@fuzzed
def test_the_page_of_a_login_link_is_on_this_server(address: str) -> None:
    with lawful():
        path = path_of(address)
        assert path.startswith("/")
        assert not path.startswith("//")


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    place = tmp_path_factory.mktemp("keys") / "keys.json"
    _, text = Keys(place).create("shop")
    return place.read_bytes(), text


@given(data=st.data())
@fuzzed
def test_the_file_of_keys(data: st.DataObject, keys_file: tuple[bytes, str], tmp_path: Path) -> None:
    """S5.4: a damaged file opens nothing."""
    content, text = keys_file
    changed = data.draw(
        mutations(content)
        | documents(read_json(content.decode())).map(lambda one: one.encode("utf-8", "surrogatepass"))
    )
    place = tmp_path / "keys.json"
    place.write_bytes(changed)
    keys = Keys(place)
    with lawful():
        keys.all()
    with lawful():
        key = keys.verify(text)
        assert key is None or key.name
    with lawful():
        assert keys.verify(data.draw(st.text(alphabet=string.printable, max_size=70))) is None


@given(documents(PAGE).map(lambda text: text.encode("utf-8", "surrogatepass")))
@fuzzed
def test_requests_to_the_scorer(body: bytes) -> None:
    """S4"""
    with lawful(ValidationError):
        ScoreRequest.model_validate_json(body)


MESSAGE = pack({"batch": 1, "pairs": [["q", "p"]]}, [b"abc"])


@given(mutations(MESSAGE * 2), st.integers(1, 20))
@fuzzed
def test_messages_between_the_scorer_and_its_replicas(content: bytes, piece: int) -> None:
    with lawful(ValueError):
        inbox = Inbox()
        for begin in range(0, len(content), piece):
            list(inbox.take(content[begin : begin + piece]))
    if int.from_bytes(content[:4], "little") + int.from_bytes(content[4:8], "little") > 1 << 20:
        return  # a length that a replica of ours does not say
    ours, theirs = socket.socketpair()
    with ours, theirs, lawful(ValueError):
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(5)
        receive(ours)


@given(ANYTHING)
@rarely
def test_overrides_of_settings(value: Any) -> None:
    """Parameters of a command or of Python: any value for any setting."""
    for name in ("review", "reviewers", "quorum", "alpha", "home", "data", "budget_latency_ms"):
        with lawful(TypeError if name not in Settings.model_fields else UsageError):
            read_settings(**{name: value})
