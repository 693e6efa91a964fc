"""Loss curves of torch's layers and of those written in NumPy, in one figure.

    python -m benchmarks.numpy_curves [--epochs 5]

Trains the MLP and Caffe's LeNet on mnist_5k by the command line, with both kinds of layers, the
same seed and precision=fp64, prints how far the losses of train, val and test lie apart at most,
and draws benchmarks/numpy_curves.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MODELS = {"mlp": "#1f77b4", "lenet_caffe": "#d62728"}
FIGURE = Path(__file__).with_name("numpy_curves.svg")
WIDTH, HEIGHT, MARGIN = 560, 320, 48  # pixels

Curve = list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description="Loss curves of both kinds of layers.")
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args().epochs
    curves: dict[tuple[str, str], Curve] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for layers in ("torch", "numpy"):
                rows = train(model, layers, epochs, Path(folder, model, layers))
                curves[model, layers] = [row["loss"] for row in rows if row["split"] == "train"]
                if layers == "torch":
                    expected = [row["loss"] for row in rows]
                else:
                    pairs = zip([row["loss"] for row in rows], expected, strict=True)
                    largest = max(abs(ours - theirs) for ours, theirs in pairs)
                    print(f"{model}: {len(rows)} losses, the largest difference {largest:.1e}")
    FIGURE.write_text(draw(curves))
    print(f"drawn: {FIGURE}")


def train(model: str, layers: str, epochs: int, folder: Path) -> list[dict]:
    """The rows of metrics.jsonl of one training."""
    words = [f"model={model}", f"layers={layers}", f"epochs={epochs}", "precision=fp64"]
    command = [sys.executable, "-m", "trainer", *words, f"hydra.run.dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def draw(curves: dict[tuple[str, str], Curve]) -> str:
    """An SVG: torch as a broad pale line, NumPy as a thin dark one upon it, logarithmic loss."""
    losses = [loss for curve in curves.values() for loss in curve]
    low, high = math.floor(math.log10(min(losses))), math.ceil(math.log10(max(losses)))
    num_epochs = max(map(len, curves.values()))

    def x_of(epoch: float) -> float:
        return MARGIN + (epoch - 1) / max(num_epochs - 1, 1) * (WIDTH - 2 * MARGIN)

    def y_of(loss: float) -> float:
        return MARGIN + (high - math.log10(loss)) / max(high - low, 1) * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(MARGIN, 20, "Training loss on mnist_5k, float64"),
        text(WIDTH // 2, HEIGHT - 8, "epoch", "middle"),
    ]
    for power in range(low, high + 1):
        y = y_of(10.0**power)
        parts.append(f'<path d="M{MARGIN},{y:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(text(MARGIN - 6, y + 4, f"{10.0**power:g}", "end"))
    for epoch in range(1, num_epochs + 1):
        parts.append(text(x_of(epoch), HEIGHT - MARGIN + 18, str(epoch), "middle"))
    for row, ((model, layers), curve) in enumerate(curves.items()):
        points = [(x_of(epoch), y_of(loss)) for epoch, loss in enumerate(curve, 1)]
        legend = 36 + 16 * row
        style = stroke(MODELS[model], layers)
        parts.append(f'<polyline points="{path(points)}" {style}/>')
        parts.append(f'<path d="M{WIDTH - 190},{legend}h28" {style}/>')
        parts.append(text(WIDTH - 154, legend + 4, f"{model}, layers={layers}"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def stroke(colour: str, layers: str) -> str:
    look = 'stroke-width="7" stroke-opacity="0.3"' if layers == "torch" else 'stroke-width="1.5"'
    return f'fill="none" stroke="{colour}" {look}'


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


if __name__ == "__main__":
    main()
