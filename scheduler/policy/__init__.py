"""Policies: plain objects that decide, with the clock passed in and no I/O. Events in, decisions out."""
