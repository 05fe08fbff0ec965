"""The hub's protocol as the real client speaks it."""
