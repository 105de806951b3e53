"""Slots as Nomad batch jobs: the launcher in the set, the registrar that registers the jobs, and their protocol."""
