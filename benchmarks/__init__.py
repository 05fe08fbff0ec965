"""What the platform is measured by; ``make bench`` runs all of it on this machine."""
