"""Accounts, shared by all sets: their keys, tokens and quotas, and the signed book that holds them."""
