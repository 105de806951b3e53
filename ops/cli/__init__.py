"""The command line `gcompute`. Its entry point is ops.cli.main:main."""
