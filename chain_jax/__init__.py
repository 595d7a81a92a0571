"""CHAIN: short binary codes for videos, learnt without labels, in JAX."""
