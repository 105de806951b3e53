"""The HTTP/1.1 data plane: heads, framing, connections on both sides. Decides nothing about which set."""
