"""Ways to install a build: its package, the container image, systemd units, a compose file."""
