"""Every loss of CHAIN, written on the global batch."""
