"""`make bench`: measures the figures of README.md, and what they are compared with, in one run on this machine."""
