"""OHIF at ``/ohif/``: its viewer as released, and our extension, which is plain JavaScript."""
