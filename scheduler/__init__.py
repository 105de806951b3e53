"""Decides what runs where; knows no HTTP. The way of a task begins in `manager`."""
