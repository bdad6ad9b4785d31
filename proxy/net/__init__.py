"""Sockets, tasks, clocks, processes and files of the data plane."""
