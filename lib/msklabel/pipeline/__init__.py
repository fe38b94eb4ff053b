"""Deterministic pre-processing, augmentation and post-processing: arrays in, arrays out."""
