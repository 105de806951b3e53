"""The router: the only address that clients know. See README.md for the way of a request."""
