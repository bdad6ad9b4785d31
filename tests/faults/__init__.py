"""Faults injected on one machine while a steady load runs, and what clients notice of them."""
