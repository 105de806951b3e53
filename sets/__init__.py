"""A set: a cell of its own with API, task manager, executor and slots, behind one address."""
