"""`gcompute doctor`: what is wrong with this machine or cluster, and how to mend it.

A *probe* gathers facts and decides nothing; a *judge* takes facts and returns findings, without I/O. `examination.py`
binds them to checks, for the files that the caller names.
"""
