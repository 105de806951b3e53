"""HTTP/1.1 as bytes: heads, framing, TLS, connections on both sides. Knows nothing of tables, rules or health."""
