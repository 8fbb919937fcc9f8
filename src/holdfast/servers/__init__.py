"""What clients talk to: one configured server, or all of them as one."""
