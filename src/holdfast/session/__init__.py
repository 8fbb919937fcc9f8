"""The middle: which session serves a call, and what becomes of it."""
