"""The data plane: pure modules here, every socket, task, clock and file under `proxy.net`."""

from proxy.net import compiled

compiled.install(__name__, __path__)
