"""Decides about one request: which set gets it, and whether it may be sent again. Pure."""
