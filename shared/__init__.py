"""What the front and the workers both need."""
