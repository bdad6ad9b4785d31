"""The proxies that are measured: each does the same per-user split of the same two backends with one worker."""

from tests.bench.peers.caddy import Caddy
from tests.bench.peers.cohort import Cohort
from tests.bench.peers.envoy import Envoy
from tests.bench.peers.haproxy import Haproxy
from tests.bench.peers.job import Job, Peer
from tests.bench.peers.nginx import Nginx
from tests.bench.peers.python import AiohttpProxy, Direct, Relay

PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (Cohort(), Nginx(), Haproxy(), Envoy(), Caddy(), AiohttpProxy(), Relay())
}

__all__ = ["PEERS", "Cohort", "Direct", "Job", "Peer"]
