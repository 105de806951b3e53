"""A set: an independent cell with API, task manager, executor and slots, behind one address."""
