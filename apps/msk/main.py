"""The MONAI Label app; `monailabel start_server --app apps/msk --studies DIR` finds its class here."""

from msklabel.app import MskLabelApp

__all__ = ["MskLabelApp"]
