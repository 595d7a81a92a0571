"""The encoder, the hash layer and the two heads."""
