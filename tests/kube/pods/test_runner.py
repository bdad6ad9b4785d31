"""The pod runner on a real API server: what a kubelet would do, and what is left when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kube.pods.images import Image
from tests.kube.pods.session import LOCKED, UNPRIVILEGED
from tests.kube.pods.space import ONCE, PORT, Space, script, server, service


async def test_a_rolling_update_replaces_every_pod_without_a_failed_request(space: Space) -> None:
    """Ready pods are in EndpointSlices; one that ends leaves them, and serves on while its preStop sleeps."""
    space.apply(server("one"), service())
    await asyncio.to_thread(space.kubectl, "rollout", "status", "deployment/server", "--timeout=120s")
    assert len(await asyncio.to_thread(space.endpoints, "server")) == 2
    seen: list[str] = []
    load = asyncio.create_task(_load(space, seen))
    await asyncio.to_thread(space.apply, server("two"))
    await asyncio.to_thread(space.kubectl, "rollout", "status", "deployment/server", "--timeout=120s")
    await asyncio.to_thread(space.cluster.until, lambda: len(_names(space)) == 2)
    load.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await load
    assert seen[0] == "one"
    assert seen[-1] == "two"
    assert set(seen) == {"one", "two"}


async def _load(space: Space, seen: list[str]) -> None:
    """Ask the ready endpoints as they are known at the moment, one after the other; every answer must be a 200."""
    async with aiohttp.ClientSession(connector=space.pods.connector(force_close=True)) as session:
        while True:
            for address in await asyncio.to_thread(space.endpoints, "server"):
                async with session.get(f"http://{address}:{PORT}/") as answer:
                    assert answer.status == 200
                    seen.append(await answer.text())
            await asyncio.sleep(0.05)


def _names(space: Space) -> list[str]:
    return [line for line in space.kubectl("get", "pods", "-o", "name").split() if line]


def test_a_service_is_reached_by_name_and_by_address_from_a_pod(space: Space) -> None:
    """One with an address of its own, and a headless one whose name is the pods' addresses."""
    space.apply(server("one"), service(), service("headless", clusterIP="None", selector={"app": "server"}))
    space.kubectl("rollout", "status", "deployment/server", "--timeout=120s")
    text = (
        "import os, socket, time, urllib.request as u\n"
        "full = 'server.%s.svc' % os.environ['SPACE']\n"
        "def get(url):\n"
        "    for wait in range(100):\n"
        "        try: return u.urlopen(url).read().decode()\n"
        "        except OSError: time.sleep(0.3)\n"
        "print(get('http://server'), get(f'http://{full}:80'))\n"
        "print(sorted({i[4][0] for i in socket.getaddrinfo('headless', 80)}))\n"
        "try: socket.getaddrinfo(f'nobody.{full}.cluster.local', 80)\n"
        "except socket.gaierror as e: print(e.errno == socket.EAI_NONAME)\n"
    )
    space.cluster.until(lambda: len(space.endpoints("headless")) == 2)
    pod = script("client", 'exec python -c "$TEXT"', **ONCE)
    pod["spec"]["containers"][0]["env"] = [{"name": "TEXT", "value": text}, {"name": "SPACE", "value": space.name}]
    space.apply(pod)
    space.until("client", "Succeeded")
    assert space.output("client").splitlines() == ["one one", str(sorted(space.endpoints("server"))), "True"]


def test_a_service_without_endpoints_refuses_connections(space: Space) -> None:
    space.apply(service())
    text = "import socket; socket.create_connection(('server', 80))"
    space.apply(script("client", f'exec python -c "{text}"', **ONCE))
    space.until("client", "Failed")
    assert "ConnectionRefusedError" in space.output("client")


def test_a_container_that_crashes_is_restarted_later_each_time(space: Space) -> None:
    """The first time at once; the status tells how it ended."""
    space.apply(script("crash", "echo try; exit 3"))
    pod = space.cluster.until(lambda: _restarted(space.pod("crash"), 3))
    status = pod["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert space.cluster.until(lambda: space.output("crash") == "try\n")
    assert "BackOff" in space.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")


def _restarted(pod: Any, times: int) -> Any:
    return pod if pod["status"].get("containerStatuses", [{}])[0].get("restartCount", 0) >= times else None


def test_a_failing_liveness_probe_restarts_the_container(space: Space) -> None:
    """By SIGTERM, which the container notices."""
    probe = {"exec": {"command": ["test", "!", "-e", "/work/ill"]}, "periodSeconds": 1, "failureThreshold": 1}
    probe["timeoutSeconds"] = 30
    text = (
        "trap 'rm /work/ill; echo ended; exit 0' TERM; [ -e /work/was ] || touch /work/ill /work/was; "
        "while :; do sleep 0.1; done"
    )
    pod = script("ill", text, volumes=[{"name": "work", "emptyDir": {}}])
    pod["spec"]["containers"][0] |= {
        "livenessProbe": probe,
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
    }
    space.apply(pod)
    space.cluster.until(lambda: _restarted(space.pod("ill"), 1))
    space.cluster.until(lambda: space.pod("ill")["status"]["containerStatuses"][0]["ready"])
    assert space.kubectl("logs", "ill", "--previous") == "ended\n"


def test_prestop_sigterm_and_the_grace_period_come_in_this_order(space: Space) -> None:
    """What ignores SIGTERM is killed when the grace period has passed, counted from the deletion on."""
    text = "trap 'echo TERM >> /work/log' TERM; echo up >> /work/log; while :; do sleep 0.1; done"
    pod = script("stubborn", text, terminationGracePeriodSeconds=4, volumes=[{"name": "work", "emptyDir": {}}])
    pod["spec"]["containers"][0] |= {
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo preStop >> /work/log; sleep 1"]}}},
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
    }
    space.apply(pod)
    log = _work(space, "stubborn") / "log"
    space.cluster.until(log.exists)
    with log.open() as file:
        began = time.monotonic()
        space.kubectl("delete", "pod", "stubborn", "--timeout=120s")
        assert time.monotonic() - began > 3.5
        assert file.read().split() == ["up", "preStop", "TERM"]


def _work(space: Space, name: str) -> Path:
    """The emptyDir `work` of a Pod as this machine has it."""
    return space.pods.folder / "pods" / str(space.pod(name)["metadata"]["uid"]) / "volumes" / "work"


def test_a_pod_that_is_deleted_by_force_is_killed(space: Space) -> None:
    """Its object is gone at once; so are its processes."""
    space.apply(script("stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done"))
    (found,) = space.cluster.until(lambda: space.pods.processes(space.name, "app=stubborn").values())
    space.kubectl("delete", "pod", "stubborn", "--force", "--grace-period=0")
    space.cluster.until(lambda: not Path(f"/proc/{found['main']}").exists())


def test_init_containers_end_and_sidecars_stay(space: Space) -> None:
    """In their order; a sidecar is ended after the containers that it serves, with its own SIGTERM."""
    mount = [{"name": "work", "mountPath": "/work"}]
    base = {"image": "python", "securityContext": LOCKED, "volumeMounts": mount}
    say = "echo {0} >> /work/log"
    stay = "trap 'echo {0}-ended >> /work/log; exit 0' TERM; echo {0} >> /work/log; while :; do sleep 0.1; done"
    startup = {"exec": {"command": ["grep", "-q", "side", "/work/log"]}, "periodSeconds": 1, "failureThreshold": 60}
    startup["timeoutSeconds"] = 30
    sidecar = {"restartPolicy": "Always", "startupProbe": startup}
    inits = [
        base | {"name": "first", "command": ["sh", "-c", say.format("first")]},
        base | {"name": "side", "command": ["sh", "-c", stay.format("side")]} | sidecar,
        base | {"name": "second", "command": ["sh", "-c", say.format("second")]},
    ]
    pod = script("family", "", initContainers=inits, volumes=[{"name": "work", "emptyDir": {}}])
    pod["spec"]["containers"] = [base | {"name": "main", "command": ["sh", "-c", stay.format("main")]}]
    space.apply(pod)
    space.kubectl("wait", "--for=condition=Ready", "pod/family", "--timeout=120s")
    log = _work(space, "family") / "log"
    space.cluster.until(lambda: "main" in log.read_text())
    with log.open() as file:
        space.kubectl("delete", "pod", "family", "--timeout=120s")
        assert file.read().split() == ["first", "side", "second", "main", "main-ended", "side-ended"]


def test_a_token_of_a_pod_works_against_the_api_server(space: Space) -> None:
    """As the user of the container, by the Service `kubernetes`, with the authority's certificate beside it."""
    text = (
        "import json, ssl, os, urllib.request as u\n"
        "d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "r = u.Request('https://kubernetes.default.svc/apis/authentication.k8s.io/v1/selfsubjectreviews',"
        ' b\'{"kind":"SelfSubjectReview","apiVersion":"authentication.k8s.io/v1"}\','
        " {'Authorization': 'Bearer ' + open(d + 'token').read(), 'Content-Type': 'application/json'})\n"
        "a = json.load(u.urlopen(r, context=ssl.create_default_context(cafile=d + 'ca.crt')))\n"
        "print(json.dumps(a['status']['userInfo']), os.getuid(), oct(os.stat(d + 'token').st_mode)[-3:])\n"
    )
    pod = script("who", 'exec python -c "$TEXT"', **ONCE)
    pod["spec"]["securityContext"] = UNPRIVILEGED | {"runAsUser": 65532}
    pod["spec"]["containers"][0]["env"] = [{"name": "TEXT", "value": text}]
    space.apply(pod)
    space.until("who", "Succeeded")
    user, uid, mode = space.output("who").rsplit(" ", 2)
    info = json.loads(user)
    assert info["username"] == f"system:serviceaccount:{space.name}:default"
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["who"]
    assert (uid, mode.strip()) == ("65532", "600")


def test_files_and_variables_come_from_the_pod_s_surroundings(space: Space) -> None:
    """ConfigMaps, Secrets, the downward API, ``$(NAME)``; a changed ConfigMap is shown without a restart."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"key": "before"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "secret"}, "stringData": {"pass": "word"}}
    label = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"configMap": {"name": "config"}},
        {"secret": {"name": "secret", "items": [{"key": "pass", "path": "deep/pass"}]}},
        {"downwardAPI": {"items": [label]}},
    ]
    text = (
        "echo $ADDRESS $BOTH; cat /files/key /files/deep/pass /files/labels; echo; "
        "until grep -q after /files/key; do sleep 0.1; done; echo changed"
    )
    pod = script("reader", text, volumes=[{"name": "files", "projected": {"sources": sources}}], **ONCE)
    pod["spec"]["containers"][0] |= {
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
        "env": [
            {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "pass"}}},
            {"name": "BOTH", "value": "$(PASS)/$(key)/$(NONE)"},
        ],
        "envFrom": [{"configMapRef": {"name": "config"}}],
    }
    space.apply(pod)
    space.cluster.until(lambda: "FailedMount" in space.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}"))
    space.apply(config, secret)
    running = space.until("reader", "Running")
    space.cluster.until(lambda: "reader" in space.output("reader"))
    space.apply(config | {"data": {"key": "after"}})
    space.until("reader", "Succeeded")
    address = running["status"]["podIP"]
    assert space.output("reader").splitlines() == [
        f"{address} word/before/$(NONE)",
        'beforewordapp="reader"',
        "changed",
    ]


def test_a_job_ends_when_its_pod_has(space: Space) -> None:
    """One failure, then success: the controller makes a second Pod."""
    spec = script("job", "exit 0", **ONCE)["spec"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {"template": {"spec": spec}}}
    space.apply(job)
    space.kubectl("wait", "--for=condition=Complete", "job/job", "--timeout=120s")


def test_a_container_sees_only_its_own_processes_and_a_read_only_root(space: Space) -> None:
    """Without capabilities, as the image's user."""
    text = "id -u; ls /proc | grep -c '^[0-9]'; touch /tmp/x; grep CapBnd /proc/self/status; hostname"
    space.apply(script("alone", text, **ONCE))
    space.until("alone", "Succeeded")
    lines = space.output("alone").splitlines()
    assert lines[0] == "65532"
    assert int(lines[1]) <= 4  # the shell and the two programs of the pipe
    assert "Read-only file system" in lines[2]
    assert lines[3].split() == ["CapBnd:", "0" * 16]
    assert lines[4] == "alone"


@pytest.mark.parametrize(
    ("image", "reason"),
    [("unknown", "no image unknown on this node"), ("rooted", "has runAsNonRoot and would run as root")],
)
def test_a_container_that_cannot_be_started_says_why(space: Space, image: str, reason: str) -> None:
    """It waits: an image may come, a Pod may not become root."""
    space.pods.images(rooted=Image(user=0))
    pod = script("waits", "id -u", **ONCE)
    pod["spec"]["containers"][0]["image"] = image
    space.apply(pod)
    space.cluster.until(lambda: reason in json.dumps(space.pod("waits")["status"]))
    assert space.pod("waits")["status"]["phase"] == "Pending"


def test_a_signal_reaches_a_container_by_its_process(space: Space) -> None:
    """As tests of faults send them: SIGKILL to process 1 ends all of it, and it is started again."""
    space.apply(script("victim", "sleep 1000 & wait"))
    processes = space.cluster.until(lambda: space.pods.processes(space.name, "app=victim").get("victim"))
    os.kill(processes["main"], signal.SIGKILL)
    pod = space.cluster.until(lambda: _restarted(space.pod("victim"), 1))
    assert pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL


def test_pods_live_on_while_the_api_server_is_down(space: Space) -> None:
    """Their statuses are written when it is back."""
    space.apply(server("one", replicas=1))
    space.kubectl("rollout", "status", "deployment/server", "--timeout=120s")
    (processes,) = space.pods.processes(space.name).values()
    space.cluster.stop_api()
    os.kill(processes["server"], signal.SIGKILL)
    space.cluster.start_api()
    space.cluster.until(lambda: space.cluster.call("GET", "/readyz"))
    path = f"/api/v1/namespaces/{space.name}/pods"
    space.cluster.until(lambda: _restarted(space.cluster.call("GET", path)["items"][0], 1))
    space.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=server", "--timeout=120s")


WATCHER = """
import json, ssl, time, urllib.request as u
folder = '/var/run/secrets/kubernetes.io/serviceaccount/'
tls = ssl.create_default_context(cafile=folder + 'ca.crt')
while True:
    fields = {'Authorization': 'Bearer ' + open(folder + 'token').read()}
    request = u.Request('https://kubernetes.default.svc/api/v1/namespaces?watch=1', headers=fields)
    try:
        with u.urlopen(request, context=tls, timeout=2) as answer:
            while answer.readline():
                print('event', flush=True)
        print('end', flush=True)
    except OSError as error:
        reason = getattr(error, 'reason', error)  # of a time-out while connecting; an answer has its status
        print(getattr(error, 'code', type(reason).__name__), flush=True)
    time.sleep(0.2)
"""


def watcher(space: Space) -> str:
    """A Pod that watches namespaces and tells how each of its connections fares; its address."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": space.name}}
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["watch"]}]
    subject = {"kind": "ServiceAccount", "name": "watcher", "namespace": space.name}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": space.name}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "watcher"}}
    space.apply(
        role | {"kind": "ClusterRole", "rules": rules},
        role | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [subject]},
        account,
    )
    pod = script("watcher", 'exec python -c "$TEXT"', serviceAccountName="watcher")
    pod["spec"]["containers"][0]["env"] = [{"name": "TEXT", "value": WATCHER}]
    space.apply(pod)
    space.cluster.until(lambda: "event" in space.output("watcher"))
    return str(space.pod("watcher")["status"]["podIP"])


@pytest.fixture
def watching(space: Space) -> Iterator[str]:
    yield watcher(space)
    space.kubectl("delete", "clusterrole,clusterrolebinding", space.name)


def said(space: Space, word: str) -> bool:
    """Whether the watcher says this from now on."""
    before = len(space.output("watcher"))
    return bool(space.cluster.until(lambda: word in space.output("watcher")[before:]))


@pytest.mark.usefixtures("watching")
def test_connections_to_the_api_server_can_be_cut(space: Space) -> None:
    """Every Pod's; the next ones are served."""
    before = space.output("watcher").count("event")
    space.pods.cut()
    space.cluster.until(lambda: space.output("watcher").count("event") > before)


def test_a_pod_can_be_isolated_from_the_api_server(space: Space, watching: str) -> None:
    """It is answered nothing, and goes on when that is over."""
    with space.pods.isolated(watching):
        space.pods.cut()
        assert said(space, "TimeoutError")
    assert said(space, "event")


@pytest.mark.usefixtures("watching")
def test_a_token_that_is_no_longer_good_is_replaced_in_its_file(space: Space) -> None:
    """Its account is made anew, so that the token is nobody's; then a new one is written."""
    space.kubectl("delete", "serviceaccount", "watcher")
    space.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "watcher"}})
    space.pods.cut()
    assert said(space, "401")
    space.pods.renew_tokens()
    assert said(space, "event")
