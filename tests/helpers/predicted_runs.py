"""For tests: folders of runs with predictions made here, as `compare` needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from trainer.runs import predictions

N = 400
LABELS = np.random.default_rng(0).integers(0, 3, N)


def make_run(
    folder: Path,
    right: NDArray[np.bool_],
    overrides: Sequence[str] = (),
    files: Sequence[str] = (),
    shape: tuple[int, ...] = (1, 28, 28),
    labels: NDArray[np.int64] = LABELS,
) -> Path:
    """A run's folder, as a training leaves it, with these images right."""
    (folder / ".hydra").mkdir(parents=True)
    config = {"data": {"_target_": "data.mnist.load_mnist_5k", "shape": list(shape)}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    rows = [
        ("test", i, files[i] if files else "", f"c{label}", f"c{label if ok else (label + 1) % 3}",
         0.9, 0.1, "c0", "c1", "c2", "", "", 0.9, 0.06, 0.04, "", "")
        for i, (label, ok) in enumerate(zip(labels.tolist(), right.tolist(), strict=True))
    ]  # fmt: skip
    predictions.write(folder / predictions.NAME, rows)
    return folder


def right(share: float, seed: int, n: int = N) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(n) < share
