"""Reading and writing scans and label maps; the only place that knows SimpleITK and pydicom."""

from msklabel.imaging.geometry import orientation_codes, same_grid, spacing_mm
from msklabel.imaging.read import is_image, read_labels, read_scan, without_suffix
from msklabel.imaging.scan import ImageError, LabelMap, Scan
from msklabel.imaging.write import write_labels

__all__ = [
    "ImageError",
    "LabelMap",
    "Scan",
    "is_image",
    "orientation_codes",
    "read_labels",
    "read_scan",
    "same_grid",
    "spacing_mm",
    "without_suffix",
    "write_labels",
]
