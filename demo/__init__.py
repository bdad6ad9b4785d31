"""The example service and the machine-local demonstration."""
