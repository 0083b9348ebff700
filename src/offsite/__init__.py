"""Offsite: virtual volumes that replicate themselves to a second system."""

__version__ = "0.1.0"
