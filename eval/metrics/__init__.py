"""One file a metric, and the protocol that every figure carries."""
