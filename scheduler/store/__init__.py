"""Where tasks survive: `contract` says what a store promises, `sqlite` keeps it, `blobs` holds large bodies."""
