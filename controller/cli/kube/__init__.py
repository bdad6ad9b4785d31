"""``kubectl cohort``: the commands that watch and steer, against a cluster's API server.

This module is all that runs before the command is known, so it imports next to nothing.
"""

from __future__ import annotations

import sys

from controller.cli import guarded


def main() -> int:
    """Run the plugin's command line; kubectl finds the program by its name, ``kubectl-cohort``.

    Returns:
        The exit code, as `controller.cli.main`.
    """

    def run() -> int:
        from controller.cli.kube import root

        return root.run(sys.argv[1:])

    return guarded(run)


def complete() -> int:
    """Complete a command line of the plugin; kubectl asks the program ``kubectl_complete-cohort`` for it."""

    def run() -> int:
        from controller.cli.kube import root

        return root.complete(sys.argv[1:])

    return guarded(run)
