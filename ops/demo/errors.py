"""Errors of the demo."""

from ops.setup.errors import OpsError


class DemoFailed(OpsError):
    """A step of the demo had a wrong result."""
