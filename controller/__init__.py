"""The rollout: documents, state machine, analysis; I/O under `controller.net`."""
