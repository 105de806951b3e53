"""The meaning of calls to a set, in any dialect. `native/` is the dialect of HTTP paths and problem details.

A dialect reads a request, asks `runs` and `results`, and writes the answer; nothing here knows a dialect or Falcon.
"""
