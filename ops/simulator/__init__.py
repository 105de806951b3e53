"""Simulator: the cell of every set and the router's choice, the ones of production, under a virtual clock."""
