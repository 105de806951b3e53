"""`make bench-router`: compares the router with nginx, HAProxy, Envoy, Traefik and Caddy in one run on this machine.

Every proxy has the same upstream, the same load, an access log, its own core and a warm-up. Rounds alternate between
the proxies; the figures are medians of the ratios within a round.
"""
