"""Simulates many releases of each kind, sick and healthy, and measures how the automated release judges them."""
