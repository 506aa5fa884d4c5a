"""Frozen and trained networks: loaded, named by the hash of their weights, and made faster."""
