"""Counts what the data plane does, for metrics, curves and a rollout's comparison."""
