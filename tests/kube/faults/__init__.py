"""Faults of a whole installation: what breaks in a cluster while a rollout is under way and users come.

What has to hold is said once, in modules without I/O: `writers` (never two), `trace` (never a weight that nobody
decided), `aborts` (they hold). Users and their flip oracle are those of the harness.
"""
