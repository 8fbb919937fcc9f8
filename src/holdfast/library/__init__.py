"""Kept sessions for applications: no gateway in between, the same rules."""
