"""A scripted controller: the REST API that the command line talks to, over a real socket, with rollouts from a test."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from controller.messages import ActionRequest, PreviewRequest
from proxy.document import Document, DocumentError, validate

Json = dict[str, Any]

HEADER = {"headerName": "X-Canary-QA", "headerValue": {"exact": "true"}}


def rollout(name: str = "checkout", namespace: str = "shop", **status: Any) -> Json:
    """A rollout in the middle of its steps, as the API shows it; ``status`` replaces parts."""
    return {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
            "strategy": {
                "canary": {
                    "steps": [
                        {"setHeaderRoute": {"name": "qa", "match": [HEADER]}},
                        {"setWeight": "5.00"},
                        {"pause": {"duration": "10m"}},
                        {"analysis": {"templates": [{"templateName": "success-rate"}]}},
                        {"pause": {}},
                    ]
                }
            },
        },
        "status": {
            "observedGeneration": 1,
            "resourceVersion": 7,
            "phase": "Progressing",
            "revision": {"stable": "v1", "canary": "v2"},
            "step": {"index": 2, "total": 5, "elapsed": "4m10s"},
            "weight": {"programmed": "5.00", "measured": "4.93", "low": "4.71", "high": "5.16"},
            "plan": {"generation": 42, "digest": "9c1e", "replicas": 3, "current": 2, "pending": ["unix:b.sock"]},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Serving",
                    "message": "",
                    "observedGeneration": 1,
                    "lastTransitionTime": "2026-11-21T04:02:54Z",
                }
            ],
            **status,
        },
    }


class FakeController:
    """What the fake serves and what it was asked.

    Attributes:
        items: Every rollout by namespace and name.
        happened: Events of every rollout.
        script: Answers that come before all else, oldest first: status and body, or bytes sent as they are.
        asked: Method and target of every request so far.
        posted: Bodies of every POST so far.
        token: What is asked for as bearer token, if anything.
    """

    def __init__(self, *items: Json) -> None:
        self.items = {(i["metadata"]["namespace"], i["metadata"]["name"]): i for i in items}
        self.happened: list[Json] = []
        self.script: deque[tuple[int, Any] | bytes] = deque()
        self.asked: list[tuple[str, str]] = []
        self.posted: list[Json] = []
        self.token: str | None = None
        self.url = ""
        self.changed = threading.Condition()
        self.is_closed = False

    def change(self, namespace: str = "shop", name: str = "checkout", **status: Any) -> None:
        """Change a rollout's status: whoever waits for that is answered."""
        with self.changed:
            current = self.items[namespace, name]["status"]
            current.update(status, resourceVersion=current["resourceVersion"] + 1)
            self.changed.notify_all()

    def close(self) -> None:
        """Answer whoever still waits."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def answer(self, method: str, target: str, body: Json | None) -> tuple[int, Any]:
        """Status and body for one request, as the API defines it."""
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = [unquote(part) for part in url.path.removeprefix("/api/v1/").split("/")]
        if parts == ["rollouts"] and method == "GET":
            wanted = query.get("namespace")
            return 200, {"items": [item for (ns, _), item in self.items.items() if wanted in (None, ns)]}
        if parts[0] != "rollouts" or len(parts) < 3:
            return 404, {"error": f"there is nothing at {url.path}"}
        key = (parts[1], parts[2])
        if key not in self.items:
            return 404, {"error": f"there is no rollout {parts[1]}/{parts[2]}"}
        return self._about(key, method, "/".join(parts[3:]), query, body)

    def _about(
        self, key: tuple[str, str], method: str, what: str, query: dict[str, str], body: Json | None
    ) -> tuple[int, Any]:
        if (method, what) == ("GET", ""):
            return 200, self._wait(key, query)
        if (method, what) == ("GET", "events"):
            return 200, {"items": [event for event in self.happened if event["seq"] > int(query.get("after", 0))]}
        if (method, what) == ("GET", "whoami"):
            return 200, {
                "key": "5d41402abc4b2a76b9719d911017c592",
                "bucket": 412,
                "arm": "canary",
                "reason": "split",
                "revision": "v2",
                "generation": 42,
                "weight": "5.00",
            }
        models: dict[str, type[Document]] = {"preview": PreviewRequest, "actions": ActionRequest}
        model = models.get(what)
        if method != "POST" or model is None or body is None:
            return 405, {"error": f"{method} is not for {what}"}
        try:
            validate(model, body)
        except DocumentError as error:
            return 422, {"error": str(error), "faults": [{"path": f.path, "message": f.message} for f in error.faults]}
        if what == "preview":
            return 200, {"token": "t0k", "path": "/.cohort/preview?token=t0k"}
        self.happened.append(
            {
                "seq": len(self.happened) + 1,
                "at": "2026-11-21T04:02:54Z",
                "type": "Normal",
                "reason": body["verb"],
                "message": f"by {body['by']}",
            }
        )
        self.change(*key)
        return 200, {"result": "Done", "message": f"{body['verb']} is done"}

    def _wait(self, key: tuple[str, str], query: dict[str, str]) -> Json:
        with self.changed:
            if "wait" in query:
                self.changed.wait_for(
                    lambda: self.is_closed or self.items[key]["status"]["resourceVersion"] != int(query["since"]),
                    float(query["wait"]),
                )
            return json.loads(json.dumps(self.items[key]))  # type: ignore[no-any-return]  # a copy of a Json


@contextmanager
def serve(fake: FakeController) -> Iterator[FakeController]:
    """Serve a fake on a free loopback port; its ``url`` says where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle(None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/json"
            fake.posted.append(body)
            self._handle(body)

        def _handle(self, body: Json | None) -> None:
            fake.asked.append((self.command, self.path))
            scripted = fake.script.popleft() if fake.script else None
            if isinstance(scripted, bytes):
                self.wfile.write(scripted)
            elif scripted:
                self._send(*scripted)
            elif fake.token and self.headers["Authorization"] != f"Bearer {fake.token}":
                self._send(401, {"error": "expected the bearer token of api.tokenFile"})
            else:
                self._send(*fake.answer(self.command, self.path, body))

        def _send(self, status: int, value: Any) -> None:
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            """Nothing: the tests look at ``asked``."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # joined at the end, so that no socket is left open

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Nothing: a client that went away is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        fake.close()
        server.shutdown()
        thread.join()
        server.server_close()
