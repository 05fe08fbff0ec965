"""Media by reference: what they are, where they come from, and what is refused."""
