"""Scans and label maps with their place in the patient; the only package that knows SimpleITK and pydicom.

What is imported here needs neither, so that the numerical core runs without them; reading is in
``msklabel.imaging.read``, writing in ``msklabel.imaging.write``.
"""

from msklabel.imaging.geometry import orientation_codes, same_grid, spacing_mm
from msklabel.imaging.scan import ImageError, LabelMap, Scan

__all__ = ["ImageError", "LabelMap", "Scan", "orientation_codes", "same_grid", "spacing_mm"]
