"""What an API server's answers mean, and how long they are waited for: a scripted one on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import click
import pytest

from controller.cli.exits import NotReachable, Refused, TimedOut, WrongUse
from controller.cli.kube.client import KubeClient
from controller.cli.kube.config import Access
from controller.cli.kube.server import Server

Json = dict[str, Any]


class Stub(ThreadingHTTPServer):
    """Answers by path: a status and a body; what it was asked is kept."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def access(self, **fields: Any) -> Access:
        return Access(self.url, context="test", **fields)


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status, text = self.server.answers[self.path.partition("?")[0]].pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Stub() as stub:
        thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield stub
        stub.shutdown()
        thread.join()


def refusal(code: int, message: str, **details: str) -> tuple[int, str]:
    return code, json.dumps({"kind": "Status", "code": code, "message": message, "details": details})


@pytest.mark.parametrize(
    ("answer", "kind", "part"),
    [
        ((404, "404 page not found\n"), WrongUse, "does not know the resources of cohort.dev: install cohort"),
        (refusal(404, 'x "y" not found', name="y"), WrongUse, "x \"y\" not found. 'get -A' lists"),
        (refusal(401, "Unauthorized"), Refused, "credentials are wrong or have expired"),
        (refusal(403, 'User "a" cannot create resource "b"'), Refused, 'not allowed: User "a" cannot create resource'),
        (refusal(422, "spec.weight: Invalid value"), Refused, "spec.weight: Invalid value"),
        (refusal(500, "etcd is gone"), NotReachable, "got status 500: etcd is gone"),
        ((200, "<html>"), NotReachable, "expected an answer of an API server"),
    ],
)
def test_an_answer_says_whose_fault_it_is(
    stub: Stub, answer: tuple[int, str], kind: type[click.ClickException], part: str
) -> None:
    """The issue: clear errors when the definitions, the rights, the server are missing."""
    stub.answers["/x"] = [answer]
    with pytest.raises(kind) as raised:
        Server(stub.access()).ask("GET", "/x")
    assert part in raised.value.message


def test_who_asks_is_sent(stub: Stub) -> None:
    """A token, and as whom to act."""
    stub.answers["/x"] = [(200, "{}")]
    Server(stub.access(token="t", headers=(("Impersonate-User", "anna"),))).ask("GET", "/x")
    fields = stub.asked[0][2]
    assert (fields["Authorization"], fields["Impersonate-User"]) == ("Bearer t", "anna")


def test_a_list_is_read_page_by_page(stub: Stub) -> None:
    """As kubectl does: a large namespace is no large answer."""
    path = "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts"
    item = {"metadata": {"name": "a", "namespace": "shop"}}
    stub.answers[path] = [
        (200, json.dumps({"items": [item], "metadata": {"continue": "more"}})),
        (200, json.dumps({"items": [item], "metadata": {}})),
    ]
    assert len(KubeClient(stub.access(namespace="shop")).rollouts(None)) == 2
    assert "continue=more" in stub.asked[1][1]


ROLLOUTS = "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts"


def listed(*names: str) -> tuple[int, str]:
    return 200, json.dumps({"items": [{"metadata": {"name": name, "namespace": "shop"}} for name in names]})


@pytest.mark.parametrize(
    ("known", "end"),
    [
        (listed("checkout", "cart"), ": did you mean 'checkout'?"),
        (listed("pay", "cart"), ": there is cart, pay."),
        (refusal(403, 'User "a" cannot list resource "canaryrollouts"'), "."),
    ],
    ids=["near", "others", "who may not list"],
)
def test_a_rollout_that_is_not_there(stub: Stub, known: tuple[int, str], end: str) -> None:
    """The nearest name, or all that there are, as far as one may see them."""
    stub.answers[f"{ROLLOUTS}/chekout"] = [refusal(404, "not found", name="chekout")]
    stub.answers[ROLLOUTS] = [known]
    with pytest.raises(WrongUse) as raised:
        KubeClient(stub.access()).rollout("shop", "chekout")
    assert raised.value.message == f"there is no rollout 'chekout' in namespace shop{end}"


@pytest.mark.parametrize(
    ("answer", "is_missing"),
    [
        (refusal(404, 'namespaces "shop" not found', name="shop"), True),
        (refusal(403, 'User "a" cannot get resource "namespaces"'), False),
        ((200, "{}"), False),
    ],
    ids=["missing", "who may not look", "empty"],
)
def test_a_namespace_without_rollouts_may_be_none(stub: Stub, answer: tuple[int, str], is_missing: bool) -> None:
    """An API server lists what is in a namespace that is not there: nothing."""
    stub.answers[ROLLOUTS] = [listed()]
    stub.answers["/api/v1/namespaces/shop"] = [answer]
    with pytest.raises(WrongUse, match="there is no namespace 'shop'") if is_missing else contextlib.nullcontext():
        assert KubeClient(stub.access()).rollouts("shop") == []


def test_a_watch_whose_past_is_forgotten_reads_anew(stub: Stub) -> None:
    """410: what was before is no longer known; the object is read as it is."""
    path = "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts"
    stub.answers[path] = [(200, json.dumps({"type": "ERROR", "object": {"code": 410}}) + "\n")]
    stub.answers[f"{path}/checkout"] = [(200, json.dumps({"metadata": {"name": "checkout"}}))]
    assert KubeClient(stub.access()).wait("shop", "checkout", "7", 5.0)["metadata"] == {"name": "checkout"}


def test_a_rollout_that_is_deleted_meanwhile(stub: Stub) -> None:
    """Whoever follows it is told."""
    path = "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts"
    stub.answers[path] = [(200, json.dumps({"type": "DELETED", "object": {}}) + "\n")]
    with pytest.raises(WrongUse, match="shop/checkout has been deleted"):
        KubeClient(stub.access()).wait("shop", "checkout", "7", 5.0)


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is one for the whole answer."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Server(Access(f"http://127.0.0.1:{silent.getsockname()[1]}"), timeout_s=0.3)
        with pytest.raises(TimedOut, match="has not answered within"):
            server.ask("GET", "/x")


def test_a_proxy_is_asked_for_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """``proxy-url`` of the kubeconfig, else what the environment says."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for way in ("kubeconfig", "environment"):
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
            asked: list[bytes] = []
            thread = threading.Thread(target=_refuse, args=(proxy, asked))
            thread.start()
            monkeypatch.setenv("https_proxy", url if way == "environment" else "")
            access = Access("https://cluster.example:6443", proxy=url if way == "kubeconfig" else "")
            with pytest.raises(NotReachable, match="Tunnel connection failed"):
                Server(access).ask("GET", "/x")
            thread.join()
        assert asked[0].startswith(b"CONNECT cluster.example:6443 ")


def _refuse(proxy: socket.socket, asked: list[bytes]) -> None:
    connection, _ = proxy.accept()
    with contextlib.closing(connection):
        asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 502 No\r\n\r\n")


@pytest.mark.parametrize("url", ["ftp://x", "cluster", "https://x:0", "https://x:99999"])
def test_an_address_that_is_none(url: str) -> None:
    """Wrong use: the kubeconfig is to be corrected."""
    with pytest.raises(WrongUse, match="correct the kubeconfig"):
        Server(Access(url))


def test_events_of_either_kind_have_a_time() -> None:
    """Those of events.k8s.io have other fields, and repetitions a series."""
    from controller.cli.kube.client import _event

    plain = {"metadata": {"resourceVersion": "7"}, "lastTimestamp": "b", "type": "Normal"}
    series = {"metadata": {"resourceVersion": "9"}, "eventTime": "a", "series": {"lastObservedTime": "c"}}
    assert [(e["seq"], e["at"]) for e in map(_event, (plain, series))] == [(7, "b"), (9, "c")]
    assert _event({"metadata": {"creationTimestamp": "d"}})["at"] == "d"
