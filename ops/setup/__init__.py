"""Set-up: the Python environment (environment.sh), Debian packages (packages.sh), the container engine (engine.py)."""
