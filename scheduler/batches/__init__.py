"""Batches: reads their inputs, makes their tasks a few at a time, and follows these to their ends."""
