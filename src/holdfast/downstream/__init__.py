"""The client's side: one file per dialect."""
