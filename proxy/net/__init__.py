"""Sockets, tasks, clocks, processes and files of the data plane."""

from proxy.net import compiled

compiled.install(__name__, __path__)
