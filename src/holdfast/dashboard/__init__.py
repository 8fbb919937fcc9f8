"""What the operator sees of a running gateway, and may do to it, over HTTP."""
