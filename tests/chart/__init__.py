"""The Helm chart: its values, what it renders, and that a real API server takes it."""
