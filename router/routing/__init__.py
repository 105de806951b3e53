"""The routing table: the operators' wishes as immutable data. Knows nothing of their file or of health."""
