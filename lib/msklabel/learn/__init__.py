"""Training: data split, losses, trainer, gate, model versions."""
