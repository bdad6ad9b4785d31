"""Real processes: proxies, a controller, clients."""
