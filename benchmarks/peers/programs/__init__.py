"""The programs of the peers; each runs in the environment of its own peer."""
