"""What runs models; one engine per module."""
