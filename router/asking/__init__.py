"""Requests that the router makes to sets by itself: health checks, and how asynchronous tasks end."""
