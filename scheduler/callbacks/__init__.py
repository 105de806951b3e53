"""Callbacks: the POST to an address of the caller's when a task has ended, at least once, by Standard Webhooks."""
