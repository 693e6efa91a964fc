"""What an epoch costs as the work grows: with the number of images, the batch size, the classes.

    python -m benchmarks.scaling [--rounds 3] [--largest 600000]

Each point is one training epoch of the MLP (28 x 28, defaults) on random images, by the program's
own loop; the points take turns, round after round, and the median counts. Linear cost shows as a
constant number of microseconds per image. Draws `benchmarks/scaling.svg`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from trainer.builders import training_run
from trainer.config import compose
from trainer.system.signals import StopSignals
from trainer.training import loop

FIGURE = Path(__file__).with_suffix(".svg")
SIZES = (6_000, 20_000, 60_000, 200_000, 600_000)
BATCH_SIZES = (16, 64, 256, 1024)
CLASSES = (2, 10, 100, 1000)
WIDTH, HEIGHT, MARGIN, GAP = 1020, 300, 46, 24

Point = tuple[str, int]  # what grows, and how large it is


def words_of(point: Point) -> list[str]:
    what, value = point
    num_images = value if what == "images" else 60_000
    words = ["data=synthetic", f"data.num_train={num_images + 2_000}", "data.num_test=1000",
             f"data.val_size={2_000 / (num_images + 2_000)}", "epochs=1",
             "tensorboard=false"]  # fmt: skip
    return words + {"images": [], "batch size": [f"batch_size={value}"],
                    "classes": [f"data.num_classes={value}"]}[what]  # fmt: skip


def seconds_of(point: Point) -> tuple[float, int]:
    """Seconds of the training epoch as the run reports them, and its images."""
    composer = compose.Composer(compose.parse(words_of(point)))
    config: dict[str, Any] = compose.plain(composer.jobs(composer.master())[0])
    with tempfile.TemporaryDirectory() as folder:
        run = training_run.build(config, Path(folder), StopSignals())
        loop.fit(run)
        run.close()
    return run.progress.train_s, run.progress.num_images


def draw(medians: dict[Point, float]) -> str:
    """Three panels side by side, both axes logarithmic: microseconds per image."""
    low, high = min(medians.values()), max(medians.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    panels = list(dict.fromkeys(what for what, _ in medians))
    width = (WIDTH - 2 * MARGIN - GAP * (len(panels) - 1)) / len(panels)
    ticks = [
        t for p in range(-1, 5) for f in (1, 2, 5) if low / 2 <= (t := f * 10.0**p) <= high * 2
    ]

    def y_of(value: float) -> float:
        share = math.log(value / ticks[0]) / math.log(ticks[-1] / ticks[0])
        return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

    for number, what in enumerate(panels):
        left = MARGIN + number * (width + GAP)
        values = {value: y for (name, value), y in medians.items() if name == what}
        first, last = min(values), max(values)
        for tick in ticks:
            parts.append(f'<path d="M{left:.0f},{y_of(tick):.1f}h{width:.0f}" stroke="#ddd"/>')
            if number == 0:
                parts.append(text(left - 6, y_of(tick) + 4, f"{tick:g}", "end"))
        points = []
        for value, micros in values.items():
            x = left + 20 + math.log(value / first) / math.log(last / first) * (width - 40)
            points.append(f"{x:.1f},{y_of(micros):.1f}")
            parts.append(f'<circle cx="{x:.1f}" cy="{y_of(micros):.1f}" r="3.5" fill="#1f5fa8"/>')
            parts.append(text(x, HEIGHT - MARGIN + 18, f"{value:,}", "middle"))
        line = f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f5fa8"/>'
        parts += [line, text(left + width / 2, HEIGHT - 8, what, "middle")]
    parts.append(text(MARGIN - 36, 20, "microseconds per image of a training epoch, the MLP"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    args = parser.parse_args()
    points = [("images", size) for size in SIZES if size <= args.largest]
    points += [("batch size", size) for size in BATCH_SIZES]
    points += [("classes", count) for count in CLASSES]
    micros: dict[Point, list[float]] = {point: [] for point in points}
    for _ in range(args.rounds):
        for point, values in micros.items():
            seconds, num_images = seconds_of(point)
            values.append(1e6 * seconds / num_images)
    medians = {point: statistics.median(values) for point, values in micros.items()}
    print("| what | value | epoch, s | microseconds per image |\n| --- | --- | --- | --- |")
    for (what, value), median in medians.items():
        num_images = value if what == "images" else 60_000
        print(f"| {what} | {value:,} | {median * num_images / 1e6:.2f} | {median:.1f} |")
    FIGURE.write_text(draw(medians))
    print(f"drawn: {FIGURE}")


if __name__ == "__main__":
    main()
