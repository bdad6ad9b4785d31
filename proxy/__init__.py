"""The data plane: pure modules here, every socket, task, clock and file under `proxy.net`."""
