"""Tests of the platform."""

from shared.torchvision_import import mend_torchvision

mend_torchvision()  # before any of them imports transformers
