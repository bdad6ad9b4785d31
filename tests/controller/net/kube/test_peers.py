"""Clients of all replicas: the same one as long as a replica is there, and none that is left open."""

from __future__ import annotations

import pytest

from controller.endpoints import Place, Unusable
from controller.errors import Temporary
from controller.net.kube.peers import Peers
from controller.net.proxies import ProxyClient
from controller.spec import Kube
from controller.version import ServiceRef
from proxy.plan import Endpoint


class Client(ProxyClient):
    def __init__(self, name: str, url: str = "") -> None:
        self.address, self.url, self.is_closed = name, url, False

    async def close(self) -> None:
        self.is_closed = True


class Here:
    """A namespace in which these pods are behind the control Service."""

    def __init__(self) -> None:
        self.found: tuple[Place, ...] = ()
        self.problem = ""

    def places(self, ref: ServiceRef) -> tuple[Place, ...]:
        assert (ref.name, ref.port) == ("web-control", 8083)
        if self.problem:
            raise Unusable(self.problem)
        return self.found


def place(pod: str, address: str, uid: str = "") -> Place:
    return Place(uid or pod, pod, Endpoint(address=address, port=8083), is_ready=False)


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def peers(here: Here) -> Peers:
    kube = Kube(namespace="shop", rollout="web")
    return Peers(kube, here, "cohort-0", Client("cohort-0"), Client)  # type: ignore[arg-type]  # as much as is asked


async def test_the_own_proxy_is_first_and_not_asked_by_its_control_port(peers: Peers, here: Here) -> None:
    """Ready or not: a proxy that waits for its first plan is one of them."""
    here.found = (place("cohort-0", "10.0.0.1"), place("cohort-1", "10.0.0.2"), place("cohort-2", "fd00::2"))
    clients = peers.clients()
    assert [client.address for client in clients] == ["cohort-0", "cohort-1", "cohort-2"]
    assert [client.url for client in clients[1:]] == ["https://10.0.0.2:8083", "https://[fd00::2]:8083"]  # type: ignore[attr-defined]
    assert all(a is b for a, b in zip(clients, peers.clients(), strict=True))


async def test_a_pod_that_was_replaced_is_another_one(peers: Peers, here: Here) -> None:
    """Under the same name: another uid, or another address; the client of before is closed once nobody has it."""
    here.found = (place("cohort-1", "10.0.0.2"),)
    before = peers.clients()[1]
    here.found = (place("cohort-1", "10.0.0.2", "another"),)
    after = peers.clients()[1]
    assert after is not before
    assert not before.is_closed  # type: ignore[attr-defined]
    await peers.retire()
    assert before.is_closed  # type: ignore[attr-defined]
    assert not after.is_closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "problem", ["there is no Service web-control", "its endpoints do not name this replica, cohort-0"]
)
async def test_where_replicas_cannot_be_found_one_that_never_answers_stands_for_them(
    peers: Peers, here: Here, problem: str
) -> None:
    """So nothing advances, and people are told why; what is known of them is asked all the same."""
    here.problem = problem if "there is" in problem else ""
    here.found = (place("cohort-1", "10.0.0.2"),)
    own, *others, unfound = peers.clients()
    assert [client.address for client in (own, unfound)] == ["cohort-0", "Service web-control"]
    assert [client.address for client in others] == ([] if here.problem else ["cohort-1"])
    assert peers.clients()[-1] is unfound
    for ask in (unfound.state, unfound.stats):
        with pytest.raises(Temporary, match=problem):
            await ask()
    with pytest.raises(Temporary, match=problem):
        await unfound.abort("1b7e1b7e", "anna", "Requested")
    here.problem = ""
    here.found += (place("cohort-0", "10.0.0.1"),)
    assert [client.address for client in peers.clients()] == ["cohort-0", "cohort-1"]


async def test_all_are_closed_at_the_end(peers: Peers, here: Here) -> None:
    """Also those that left and were still in use."""
    here.found = (place("cohort-1", "10.0.0.2"), place("cohort-2", "10.0.0.3"), place("cohort-0", "10.0.0.1"))
    clients = peers.clients()
    here.found = here.found[::2]
    peers.clients()
    await peers.close()
    assert all(client.is_closed for client in clients)  # type: ignore[attr-defined]
