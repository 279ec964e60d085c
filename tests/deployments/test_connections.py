"""Slow, large and many clients of a server, over real sockets: S1, S7 and W1.3 of the table of inputs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import uvicorn

from esci_tournament.deployments.connections import LimitedProtocol, limited_protocol
from esci_tournament.deployments.crowd import ConnectionLimits
from esci_tournament.deployments.room import Waiting

LIMITS = ConnectionLimits(
    connections=16,
    per_address=None,
    reserve=2,
    head_s=0.6,
    head_bytes=4096,
    fields=20,
    body_s=0.8,
    bodies_bytes=200_000,
    idle_s=1.0,
)


class Server:
    """A server that answers the length of each body; `/busy` waits until it is let go."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.refusals: list[str] = []
        self.protocol: type[LimitedProtocol] = limited_protocol(limits, self.refusals.append)
        self.free = threading.Event()
        self.disconnected = 0
        self.failures: list[Exception] = []

    async def app(self, scope, receive, send) -> None:
        try:
            await self._answer(scope, receive, send)
        except Exception as error:
            self.failures.append(error)
            raise

    async def _answer(self, scope, receive, send) -> None:
        size, message = 0, {"more_body": True}
        if scope["path"] != "/early":
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.disconnected += 1
                    return
                size += len(message["body"])
        while scope["path"] == "/busy" and not self.free.is_set():
            await asyncio.sleep(0.01)
        body = b"x" * 50_000_000 if scope["path"] == "/large" else str(size).encode()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    @property
    def crowd(self):
        return self.protocol.crowd


@contextmanager
def running(limits: ConnectionLimits) -> Iterator[tuple[Server, Callable[[], socket.socket]]]:
    server = Server(limits)
    more = {"interface": "asgi3", "ws": "none", "lifespan": "off", "log_level": "critical"}
    config = uvicorn.Config(server.app, http=server.protocol, port=0, **more)
    run = uvicorn.Server(config)
    thread = threading.Thread(target=run.run)
    thread.start()
    while not run.started:
        time.sleep(0.01)
    port = run.servers[0].sockets[0].getsockname()[1]
    with ExitStack() as opened:

        def connect() -> socket.socket:
            return opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))

        yield server, connect
    server.free.set()
    run.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def _shared() -> Iterator[tuple[Server, Callable[[], socket.socket]]]:
    with running(LIMITS) as both:
        yield both


@pytest.fixture
def server(_shared) -> Server:
    until(lambda: len(_shared[0].crowd) == 0)
    _shared[0].refusals.clear()
    _shared[0].free.clear()
    return _shared[0]


@pytest.fixture
def connect(_shared) -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as opened:
        yield lambda: opened.enter_context(_shared[1]())


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def heard(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes, or has answered with a body."""
    content = b""
    while part := connection.recv(65536):
        content += part
        head, end, body = content.partition(b"\r\n\r\n")
        if end and len(body) == int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            break
    return content


def sent_until_closed(connection: socket.socket, piece: bytes, most: int, pause_s: float = 0.0) -> int:
    """Send a piece again and again, and return the bytes that were sent when the other side had closed."""
    sent = 0
    while sent < most:
        try:
            sent += connection.send(piece)
        except ConnectionError:
            return sent
        time.sleep(pause_s)
    raise AssertionError(f"{sent} bytes were taken")


def get(connection: socket.socket, path: str = "/healthz", more: bytes = b"") -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n".encode() + more + b"\r\n")
    return heard(connection)


def gone(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def post(size: int, path: str = "/") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n".encode()


def test_a_header_that_does_not_end_is_closed_in_time_however_its_bytes_trickle(server, connect) -> None:
    """S1: 1,100 unfinished headers were kept until they hung up."""
    silent, trickling = connect(), connect()
    trickling.sendall(b"GET / HTTP/1.1\r\n")
    begun = time.monotonic()
    sent_until_closed(trickling, b"a", 100, 0.05)
    assert time.monotonic() - begun < 5
    assert gone(silent)


def test_a_new_client_is_heard_though_unfinished_headers_hold_every_connection(server, connect) -> None:
    """S1: /healthz was refused for as long as they held on."""
    for _ in range(5 * LIMITS.connections):
        connect().sendall(b"GET / HTTP/1.1\r\nx: ")
    begun = time.monotonic()
    assert get(connect(), "/").startswith(b"HTTP/1.1 200")
    assert time.monotonic() - begun < LIMITS.head_s, "others are closed for it, not waited for"
    assert len(server.crowd) <= LIMITS.connections


def test_a_new_client_is_heard_and_an_answered_one_is_kept_though_unfinished_bodies_hold_every_connection(
    server, connect
) -> None:
    """Bodies had two seconds of grace, in which unused connections were closed in their place, or nobody let in."""
    answered = connect()
    assert get(answered, "/").startswith(b"HTTP/1.1 200")
    for _ in range(5 * LIMITS.connections):
        connect().sendall(post(100_000) + b"a")
    begun = time.monotonic()
    assert get(connect(), "/").startswith(b"HTTP/1.1 200")
    assert get(answered, "/").startswith(b"HTTP/1.1 200")
    assert time.monotonic() - begun < 1.5
    assert len(server.crowd) <= LIMITS.connections


def test_while_every_connection_is_being_answered_a_reserve_answers_health_alone(server, connect) -> None:
    busy = [connect() for _ in range(LIMITS.connections)]
    for one in busy:
        one.sendall(post(0, "/busy"))
    until(lambda: len(server.crowd.room.waiting_for(Waiting.BUSY)) == LIMITS.connections)
    assert get(connect(), "/healthz").startswith(b"HTTP/1.1 200")
    refused = get(connect(), "/v1/score")
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in refused
    server.free.set()
    assert all(heard(one).startswith(b"HTTP/1.1 200") for one in busy)


def test_one_address_cannot_take_all_connections_unless_it_is_a_proxy() -> None:
    for proxies, kept in (((), 4), (("127.0.0.0/8",), 9)):
        with running(ConnectionLimits(connections=16, per_address=4, proxies=proxies)) as (server, connect):
            for _ in range(8):
                connect()
            assert get(connect()).startswith(b"HTTP/1.1 200")
            assert len(server.crowd) == kept


@pytest.mark.parametrize(
    "flood",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 30 + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"a" * 3_000_000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + b"a: b\r\n" * 30 + b"\r\n",
    ],
    ids=["path", "field", "fields", "endless", "trailers"],
)
def test_a_header_that_is_too_large_is_431(server, connect, flood) -> None:
    """S7: 400 MiB of header were taken."""
    one = connect()
    one.sendall(flood)
    assert heard(one).startswith(b"HTTP/1.1 431")
    assert gone(one)
    assert server.refusals == ["head"]


def test_an_endless_header_is_not_kept_nor_read_for_ever(server, connect) -> None:
    one = connect()
    one.sendall(b"GET / HTTP/1.1\r\nx: ")
    sent_until_closed(one, b"a" * 2**20, 64 * 2**20)


def test_a_body_that_trickles_or_stops_is_408(server, connect) -> None:
    """W1.3: 1,100 slow bodies were kept."""
    stops, trickles = connect(), connect()
    stops.sendall(post(100_000) + b"a" * 70_000)
    trickles.sendall(post(100_000))
    begun = time.monotonic()
    while time.monotonic() - begun < 0.6:
        trickles.sendall(b"a")
        time.sleep(0.1)
    for one in (stops, trickles):
        assert heard(one).startswith(b"HTTP/1.1 408")
    assert server.refusals == ["slow", "slow"]
    until(lambda: server.crowd.bodies == 0)


def test_bodies_have_one_budget_which_comes_back(server, connect) -> None:
    first, second, third = connect(), connect(), connect()
    first.sendall(post(150_000) + b"a" * 149_999)
    until(lambda: server.crowd.bodies == 149_999)
    second.sendall(post(150_000) + b"a" * 150_000)
    answer = heard(second)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 1" in answer
    first.sendall(b"a")
    assert heard(first).endswith(b"150000")
    third.sendall(post(900_000) + b"a" * 900_000)
    assert heard(third).endswith(b"900000"), "one that is alone may have more"
    assert server.crowd.bodies == 0


def test_who_is_answered_before_the_body_cannot_go_on_sending_it(server, connect) -> None:
    one = connect()
    one.sendall(post(10**9, "/early"))
    assert heard(one).startswith(b"HTTP/1.1 200")
    sent_until_closed(one, b"a" * 2**20, 64 * 2**20)
    assert server.crowd.bodies == 0


def test_chunks_of_one_byte_are_refused_and_others_are_not(server, connect) -> None:
    fine, tiny = connect(), connect()
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    fine.sendall(head + b"8\r\n12345678\r\n" * 5000 + b"0\r\n\r\n")
    assert heard(fine).endswith(b"40000")
    tiny.sendall(head + b"".join(b"1;" + b"e" * 90 + b"\r\na\r\n" for _ in range(5000)))
    assert heard(tiny).startswith(b"HTTP/1.1 400")


def test_requests_that_do_not_wait_for_answers_are_bounded(server, connect) -> None:
    one = connect()
    one.sendall(post(0, "/busy") * 5000)
    answer = heard(one)
    assert server.refusals == ["pipeline"]
    assert answer.startswith(b"HTTP/1.1 429"), "the first request is still being answered: its answer must not follow"
    server.free.set()
    time.sleep(0.1)
    assert gone(one)
    assert not server.failures


def test_several_requests_of_one_connection_are_answered_and_an_unused_one_is_closed(server, connect) -> None:
    one = connect()
    one.sendall(post(3) + b"abc" + post(4) + b"abcd")
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 2 or not answers.endswith(b"\r\n\r\n4"):
        answers += one.recv(65536)
    time.sleep(0.7)  # longer than a header may take
    assert get(one).endswith(b"0")
    begun = time.monotonic()
    assert gone(one)
    assert 0.8 < time.monotonic() - begun < 4


def test_who_does_not_read_the_answer_is_closed(server, connect, monkeypatch) -> None:
    monkeypatch.setattr("esci_tournament.deployments.crowd._UNREAD_S", 0.3)
    connect().sendall(post(0, "/large"))
    until(lambda: len(server.crowd) == 1)
    until(lambda: len(server.crowd) == 0)


def test_what_is_no_http_is_400(server, connect) -> None:
    one = connect()
    one.sendall(b"\x16\x03\x01 hello\r\n\r\n")
    assert heard(one).startswith(b"HTTP/1.1 400")
