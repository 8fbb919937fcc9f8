"""Asks one server how it treats sessions, and says which settings suit it."""
