"""Choosing what to annotate next."""
