"""The operators' file: read, check, edit, watch, and keep its history."""
