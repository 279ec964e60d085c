"""Messages on a socket: whole, in order, however they arrive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esci_tournament.deployments.scorer.compute.wire import Inbox, pack, receive, receive_with, send_with

HEADERS = st.dictionaries(st.text(max_size=5), st.integers(-(2**31), 2**31) | st.text(max_size=5), max_size=3)
MESSAGES = st.lists(st.tuples(HEADERS, st.lists(st.binary(max_size=20), max_size=3)), max_size=6)

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@settings(max_examples=50)
@given(MESSAGES, st.lists(st.integers(0, 400), max_size=12))
def test_messages_come_out_as_they_went_in_wherever_the_stream_is_cut(messages, cuts) -> None:
    stream = b"".join(pack(header, content) for header, content in messages)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    inbox = Inbox()
    arrived = [
        (header, bytes(content))
        for start, stop in pairwise(bounds)
        for header, content in inbox.take(stream[start:stop])
    ]
    assert arrived == [(header, b"".join(content)) for header, content in messages]


def test_who_waits_for_a_message_gets_one_at_a_time_and_none_from_who_is_gone(ends: Ends) -> None:
    ours, theirs = ends
    ours.sendall(pack({"first": 1}, [b"ab", memoryview(b"c")]) + pack({"second": 2}))
    for header, content in (({"first": 1}, b"abc"), ({"second": 2}, b"")):
        message = receive(theirs)
        assert message is not None
        assert (message[0], bytes(message[1])) == (header, content)
    ours.close()
    assert receive(theirs) is None


@pytest.mark.parametrize("kept", [3, 10])
def test_half_a_message_of_who_is_gone_is_none(ends: Ends, kept: int) -> None:
    ours, theirs = ends
    ours.sendall(pack({"a": 1}, [b"content"])[:kept])
    ours.close()
    assert receive(theirs) is None


def test_a_socket_that_goes_with_a_message_is_usable_when_its_sender_has_closed_it(ends: Ends) -> None:
    ours, theirs = ends
    near, far = socket.socketpair()
    with near:
        send_with(ours, {"as": "replica"}, far)
        far.close()
        came = receive_with(theirs)
        assert came is not None
        header, other = came
        assert header == {"as": "replica"}
        assert other is not None
        with other:
            other.sendall(b"here")
        assert near.recv(10) == b"here"


def test_a_message_may_come_without_a_socket(ends: Ends) -> None:
    ours, theirs = ends
    ours.sendall(pack({"as": "keeper"}))
    assert receive_with(theirs) == ({"as": "keeper"}, None)
    ours.close()
    assert receive_with(theirs) is None
