"""Images from their registries' HTTP API (OCI distribution), without a container engine.

An image reference is a stranger's text. `allowed` decides which addresses may be contacted, and nothing else is.
"""
