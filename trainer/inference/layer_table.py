"""Layer table of a model: output shapes, parameters and multiply-adds of one image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from trainer.builders import datasets, networks
from trainer.builders.idle_keys import refuse_in_training
from trainer.config.targets import check_options
from trainer.system.macs import counting_macs
from trainer.system.start import torch_is_imported
from trainer.text.tables import align

# Name, type, output shape without the batch, parameters, multiply-adds.
Row = tuple[str, str, tuple[int, ...], int, int]


def table_of(config: dict[str, Any], typed: Collection[str]) -> str:
    """Table of the model that a checked configuration describes. Raises UserError, also if a key
    that was typed would change nothing."""
    torch_is_imported()
    check_options("model", config["model"])
    refuse_in_training(typed, [config])
    shape, num_classes = datasets.announced_size(config["data"])
    model = networks.make_model(config, shape, num_classes)
    return table(model, shape, networks.input_size(model, shape))


def table(model: nn.Module, shape: tuple[int, int, int], size: tuple[int, int]) -> str:
    """One row per layer that computes, in the order of the forward pass, then the totals."""
    rows = layer_rows(model, (1, shape[0], *size))
    num_parameters = sum(p.numel() for p in model.parameters())
    lines = [["layer", "type", "output shape", "parameters", "multiply-adds"]]
    lines.append(["", "input", show(shape), "", ""])
    if size != shape[1:]:
        lines.append(["", "enlarged", show((shape[0], *size)), "", ""])
    for name, kind, output, parameters, macs in rows:
        lines.append([name, kind, show(output), f"{parameters:,}" if parameters else "",
                      f"{macs:,}" if macs else ""])  # fmt: skip
    unseen = num_parameters - sum(row[3] for row in rows)
    if unseen:  # auxiliary heads; a transformer's embeddings, and projections called as functions
        lines.append(["", "in training only, or no layer of their own", "", f"{unseen:,}", ""])
    macs = sum(row[4] for row in rows)
    lines.append(["total", "", "", f"{num_parameters:,}", f"{macs:,}"])
    return align(lines, left=(0, 1, 2))


def layer_rows(model: nn.Module, input_shape: tuple[int, ...]) -> list[Row]:
    """A row for each leaf, by one forward pass of a single image in eval mode under torch's FLOP
    counter."""
    rows: list[Row] = []
    total = 0

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            nonlocal total
            now = counter.total
            seen = {row[0] for row in rows}
            own = 0 if name in seen else sum(p.numel() for p in module.parameters())
            rows.append((name, kind_of(module), tuple(output.shape[1:]), own, now - total))
            total = now

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    with torch.no_grad(), counting_macs() as counter:
        model.eval()(torch.zeros(input_shape))
    for handle in handles:
        handle.remove()
    return rows


def kind_of(module: nn.Module) -> str:
    """Class of a layer; of dropout with its share, for no other column tells."""
    name = type(module).__name__
    return f"{name} {module.p:g}" if name.startswith("Dropout") else name


def show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
