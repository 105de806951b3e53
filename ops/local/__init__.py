"""The local stack: a router and two sets on this machine; see stack.py."""
