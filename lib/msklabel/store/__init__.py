"""Where images, labels and their history are kept."""

from msklabel.store.core import Store, TrainingPair

__all__ = ["Store", "TrainingPair"]
