"""The server's side: one file per transport."""
