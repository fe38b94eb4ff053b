"""Active learning played through on a pool whose labels are all known."""
