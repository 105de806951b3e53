"""The native HTTP API of a set. `app` shows all routes on one screen; `problems` is every answer that is an error."""
