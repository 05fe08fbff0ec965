"""Tests on real services over real connections."""
