"""A set's HTTP/1.1, between gunicorn's worker and the ASGI application.

gunicorn's own protocol class parses in Python and passes a request through four coroutines, which took more than a
quarter of a small task's CPU time. This one has only what a set needs: no upgrades, no HTTP/2, no access log. It
accepts and refuses the same requests as the router.
"""
