"""What a call to a set means, whatever dialect carries it. `native/` is the dialect of HTTP paths and problem details.

A dialect reads a request, asks `runs` and `results`, and writes the answer; nothing here knows a dialect or Falcon.
"""
