"""Relays requests to sets and answers to clients: the data plane, its lists, and its access log."""
