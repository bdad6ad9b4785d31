"""Synthetic users."""
