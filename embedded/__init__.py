"""The platform on one machine without containers: supervisor, stores and a demonstration."""
