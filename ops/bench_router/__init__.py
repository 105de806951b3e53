"""`make bench-router`: the router beside nginx, HAProxy, Envoy, Traefik and Caddy, in one run on this machine.

Every proxy has the same upstream, the same load, an access log, one core of its own and a warm-up; rounds take turns,
ratios are taken within a round, and their medians are the figures.
"""
