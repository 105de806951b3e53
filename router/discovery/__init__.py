"""Finds the addresses of sets in a service registry: Consul, or Nomad's own services.

A registry that is away, empty or wrong changes nothing for the sets whose addresses are known.
"""
