"""Prediction: from a scan to a label map."""
