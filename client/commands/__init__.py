"""The commands of ``lifecycle``, a module for each group."""
