"""The APIs that clients speak: what a request asks for, and how errors and merged lists look. Pure."""
