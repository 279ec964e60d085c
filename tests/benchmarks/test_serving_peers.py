"""The benchmark of the scorer beside other servers: what it makes of answers, without any of them."""

import math
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks import serving_peers
from benchmarks.load.generator import Answer, arrivals, request, trace
from benchmarks.serving_peers import OURS, BentoML, LitServe, RayServe, compare, environment, facts, milliseconds


class _Replica(BaseHTTPRequestHandler):
    """Answers in one of the ways that servers do, by path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(503 if self.path == "/busy" else 200)
        if self.path == "/chunked":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'7\r\n[{"a": \r\n3\r\n1}]\r\n0\r\n\r\n')
        else:
            self.send_header("content-length", "8")
            self.end_headers()
            self.wfile.write(b'{"a": 1}')

    def log_message(self, *message: object) -> None:
        """Say nothing."""


@pytest.fixture
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Replica) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_trace_has_every_answer_in_the_order_of_the_requests(address) -> None:
    asked = [request(address, path, b"{}") for path in ("/whole", "/chunked", "/busy")]
    answers = trace(address, asked, [0.0, 0.0, 0.01], patience_s=10)
    assert [one.status for one in answers] == ["200", "200", "503"]
    assert [facts(one.body) for one in answers] == [{"a": 1}] * 3
    assert all(one.came >= one.due for one in answers)


def test_a_server_that_is_not_there_is_a_failure() -> None:
    nowhere = f"http://127.0.0.1:{serving_peers.free_port()}"
    (answer,) = trace(nowhere, [request(nowhere, "/", b"{}")], [0.0], patience_s=10)
    assert not answer.good
    assert math.isnan(milliseconds([answer], 50))


def test_arrivals_have_the_rate_that_was_asked_for() -> None:
    moments = arrivals(50, 40)
    assert len(moments) == pytest.approx(2000, rel=0.1)
    assert moments == sorted(moments)
    assert moments[-1] < 40


def test_time_waits_from_the_moment_a_page_was_due() -> None:
    answers = [Answer(1.0, 1.5, "200", b""), Answer(2.0, 2.1, "200", b""), Answer(0.0, 9.0, "504", b"")]
    assert milliseconds(answers, 100) == pytest.approx(500)


def test_medians_of_the_rounds_stand_beside_each_peer() -> None:
    def one(ours: float, peer: float) -> dict:
        return {name: {"p50": (value, "ms")} for name, value in ((OURS, ours), ("RayServe", peer), ("LitServe", 7.0))}

    rounds = [one(1.0, 4.0), one(9.0, 6.0), one(3.0, 5.0)]
    for name, failed in ((OURS, 1.0), ("RayServe", 0.0), ("LitServe", 2.0)):
        rounds[0][name]["champion changes: failed"] = (failed, "requests")
    *figures, number = compare(rounds)
    assert number.value == 3
    assert [(each.name, each.value, each.peer, each.peer_value, each.met) for each in figures] == [
        ("p50", 3.0, "LitServe", 7.0, None),
        ("p50", 3.0, "RayServe", 5.0, None),
        ("champion changes: failed", 1.0, "LitServe", 2.0, False),
        ("champion changes: failed", 1.0, "RayServe", 0.0, False),
    ]


def test_without_peers_the_scorer_stands_alone() -> None:
    figure, _ = compare([{OURS: {"champion changes: failed": (0.0, "requests")}}])
    assert figure.met is True
    assert figure.peer_value is None


def test_each_server_gets_a_page_in_its_own_form() -> None:
    page = {"query": "lamp"}
    places = [kind("http://127.0.0.1:1", 1, None) for kind in (LitServe, RayServe, BentoML)]
    assert [one.body(page) for one in places] == [page, page, {"pages": [page]}]


def test_a_peer_that_cannot_be_installed_is_left_out(monkeypatch, tmp_path, capsys) -> None:
    def refuse(command, **_) -> None:
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(serving_peers, "_ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", refuse)
    assert environment("nothing[serve]") is None
    assert "nothing[serve] is left out" in capsys.readouterr().err
