"""The images and curves by which TensorBoard shows what a model sees, how it errs and what it has
learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from trainer.evaluation import plots
from trainer.evaluation.confusion import per_class
from trainer.evaluation.findings import Findings, Mistake
from trainer.text.printable import printable
from trainer.training.run import Run

NUM_PICTURES = 16  # of the first batch
NUM_FILTERS = 64
FILTERS_SIDE = 480  # of the grid of filters, about, in pixels
MANY_CLASSES = 20  # with more, an image of bars instead of a curve for each
NUM_BARS = 50


def show_batch(writer: Any, run: Run, images: Tensor, targets: Tensor) -> None:
    """images: (N, C, H, W) float as the model sees them. targets: (N,) or (N, K)."""
    shown = images[:NUM_PICTURES].detach().cpu().double()
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (run.about.description.mean, run.about.description.std)
    )
    pixels = (shown * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
    captions = [label_of(t, run.about.description.classes) for t in targets[:NUM_PICTURES].cpu()]
    add_picture(writer, "images/train", plots.picture_grid(pixels, captions), 0)


def label_of(target: Tensor, classes: Sequence[str]) -> str:
    """target: a class, or (K,) probabilities, of which the two largest are named."""
    if target.ndim == 0:
        return plots.drawable(classes[int(target)], int(target))
    shares, order = target.topk(min(2, len(target)))
    return "\n".join(
        f"{share:.0%} {plots.drawable(classes[k], k)}"
        for share, k in zip(shares.tolist(), order.tolist(), strict=True)
        if share >= 0.005
    )


def show_findings(writer: Any, run: Run, split: str, findings: Findings, step: int) -> None:
    classes = run.about.description.classes
    cells = findings.confusion.cells
    add_picture(writer, f"confusion/{split}", plots.confusion(cells, classes), step)
    captions = [
        f"{plots.drawable(classes[m.predicted], m.predicted)} {m.probability:.0%}\n"
        f"true {plots.drawable(classes[m.label], m.label)}"
        for m in findings.mistakes
    ]
    if captions:
        pixels = pictures_of(run, split, findings.mistakes)
        add_picture(writer, f"mistakes/{split}", plots.picture_grid(pixels, captions), step)


def pictures_of(run: Run, split: str, mistakes: Sequence[Mistake]) -> Tensor:
    """(N, C, H, W) uint8, on the CPU, as the dataset has them."""
    positions = torch.tensor([m.index for m in mistakes], dtype=torch.int64)
    return getattr(run.about.data, split).images_at(positions)


def show_classes(writer: Any, run: Run, findings: Findings, step: int) -> None:
    """The share of each class that was recognised."""
    classes = run.about.description.classes
    rows = per_class(findings.confusion.cells.tolist(), findings.confusion.num_classes)
    known = [(row["recall"], k) for k, row in enumerate(rows) if row["count"]]
    if len(classes) <= MANY_CLASSES:
        for accuracy, k in known:
            writer.add_scalar(f"accuracy_per_class/{printable(classes[k])}", accuracy, step)
    else:
        worst = sorted(known)[:NUM_BARS]
        named = [(accuracy, plots.drawable(classes[k], k)) for accuracy, k in worst]
        add_picture(writer, "accuracy_per_class", bars(named), step)


def bars(rows: Sequence[tuple[float, str]]) -> Image.Image:
    """A bar for each (share, name), from the worst class on."""
    font, line, left, width = ImageFont.load_default(13), 20, 170, 300
    image = Image.new("RGB", (left + width + 70, line * len(rows) + 8), plots.WHITE)
    draw = ImageDraw.Draw(image)
    for i, (share, name) in enumerate(rows):
        y = 4 + i * line
        draw.text((left - 8, y + line // 2), name[:24], plots.INK, font, anchor="rm")
        draw.rectangle((left, y + 3, left + width, y + line - 4), fill=(235, 235, 235))
        if share > 0:
            draw.rectangle((left, y + 3, left + share * width, y + line - 4), fill=plots.HUE)
        draw.text((left + width + 8, y + line // 2), f"{share:.1%}", plots.INK, font, anchor="lm")
    return image


def show_filters(writer: Any, run: Run, step: int) -> None:
    """The weights that meet the pixels, as images: a convolution's, or those of a linear layer
    that takes the image as it is."""
    channels, height, width = run.about.description.shape
    for name, parameter in run.model.named_parameters():
        weight = parameter.detach()
        if weight.ndim == 2 and weight.shape[1] == channels * height * width:
            weight = weight.view(-1, channels, height, width)
        if weight.ndim == 4:
            grid = filter_grid(weight[:NUM_FILTERS].cpu().float())
            writer.add_image(f"filters/{name}", grid, step, dataformats="HWC")
            return


def filter_grid(filters: Tensor) -> NDArray[np.uint8]:
    """Side by side, grey being zero; each by its own scale, its largest weight black or white.

    Args:
        filters: (N, C, H, W); of other than 3 channels the first is shown.

    Returns:
        (height, width, 3) uint8.
    """
    if filters.shape[1] != 3:
        filters = filters[:, :1].expand(-1, 3, -1, -1)
    largest = filters.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    pixels = (filters / largest * 127.5 + 127.5).round()
    columns = math.ceil(math.sqrt(len(pixels)))
    factor = max(1, FILTERS_SIDE // (columns * (pixels.shape[-1] + 1)))
    pixels = pixels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    pixels = F.pad(pixels, (0, max(2, factor // 2), 0, max(2, factor // 2)), value=255)
    missing = -len(pixels) % columns
    pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, missing), value=255)
    rows = pixels.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)
    return rows.reshape(rows.shape[0] * rows.shape[1], -1, 3).to(torch.uint8).numpy()


def show_histograms(writer: Any, run: Run) -> None:
    for name, parameter in run.model.named_parameters():
        for kind, tensor in (("weights", parameter), ("gradients", parameter.grad)):
            if tensor is not None:
                writer.add_histogram(
                    f"{kind}/{name}", tensor.detach().float().cpu(), run.progress.step
                )


def add_picture(writer: Any, tag: str, picture: Image.Image, step: int) -> None:
    writer.add_image(tag, np.asarray(picture), step, dataformats="HWC")
