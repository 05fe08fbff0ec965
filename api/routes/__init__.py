"""The calls of the public API, a module for each noun."""
