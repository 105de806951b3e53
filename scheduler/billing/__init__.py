"""Dated prices, and the sums of an account over a period. Pure."""
