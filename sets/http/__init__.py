"""HTTP/1.1 as a set speaks it, between gunicorn's worker and the ASGI application.

gunicorn's own protocol class parses in Python and passes a request through four coroutines; measured, that was more
than a quarter of a small task's CPU time. This one knows only what a set needs: no upgrades, no HTTP/2, no
access log. It reads what the router reads, and refuses what the router refuses.
"""
