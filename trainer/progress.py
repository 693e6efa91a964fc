"""How far a run is, and the best it has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.metrics import Metrics


@dataclass
class Progress:
    """How far the training is: complete epochs, batches done in the running one, steps in all,
    seconds and pictures inside training epochs."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    train_s: float = 0.0
    num_images: int = 0


@dataclass
class Best:
    """The epoch (from 1) whose weights are kept: highest validation accuracy; ties: lower loss,
    then earlier. A NaN never wins."""

    epoch: int = 0
    accuracy: float = -1.0
    loss: float = math.inf

    def beaten_by(self, val: Metrics) -> bool:
        if not math.isfinite(val.loss):
            return False
        return (val.accuracy, -val.loss) > (self.accuracy, -self.loss)
