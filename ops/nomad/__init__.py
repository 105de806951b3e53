"""Nomad for slots: configuration of agents, policies, the folders of a node, and an agent of this machine's own."""
