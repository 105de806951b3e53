"""`make bench`: the figures of README.md, each beside what it is compared with, in one run on this machine."""
