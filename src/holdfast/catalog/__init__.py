"""What servers list, kept and served."""
