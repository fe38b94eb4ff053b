"""Seeded synthetic scans with true labels, for tests, demonstrations and benchmarks."""
