"""Active-learning annotation server for hip and thigh imaging, on MONAI Label."""

import os

__version__ = "0.1.0"

# PyTorch asks for this once, before its first tensor: large tensors lie on pages of 2 MiB instead of 4 KiB, as many
# small pages take longer to be cleared than some layers take to compute.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
