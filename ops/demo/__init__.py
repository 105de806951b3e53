"""The demo: real pictures through the routed API, with what each step does and the curl line that does the same."""
