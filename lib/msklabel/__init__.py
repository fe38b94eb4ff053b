"""Active-learning annotation server for hip and thigh imaging, on MONAI Label."""

__version__ = "0.1.0"
