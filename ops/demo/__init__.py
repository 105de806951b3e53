"""The demo: real pictures through the routed API, with an explanation and the equivalent curl line for each step."""
