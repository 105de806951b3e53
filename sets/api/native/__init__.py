"""The native HTTP API. `routes` shows all routes on one screen; `problems` holds every answer that is an error."""
