"""The store of tasks: `contract` says what it guarantees, `sqlite` implements it, `blobs` holds large bodies."""
