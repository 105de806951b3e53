"""The operators' side of the router: Falcon, on its own address."""
