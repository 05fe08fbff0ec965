"""Moves what the embedded lakeFS server holds to another lakeFS server."""
