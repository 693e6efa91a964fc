"""`trainer summary [key=value ...]`: the layer table of a model on a data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainer.builders.idle_keys import FRESH_WEIGHTS, keys_in, refuse_in_training
from trainer.config import knobs
from trainer.errors import UserError
from trainer.system.progress_bars import starting
from trainer.text.tables import align

if TYPE_CHECKING:
    from torch import Tensor, nn

HELP = """usage: trainer summary [key=value ...]

The layers of a model with output shapes, parameters and multiply-adds for one picture, as they
would be trained: `trainer summary model=vgg16 data=cifar10`. Keys: model, data and their options
that shape the layers, and experiment. The data need not be there."""

GROUPS = ("model", "data", "experiment")
# Of these groups, what shapes no layer.
IDLE = {*FRESH_WEIGHTS, "model.aux_pool"} | {
    key for key in (*knobs.KNOBS, "data.file_md5") if key.startswith("data.")
} - {"data.shape", "data.num_classes", "data.root", "data.download"}  # folders are counted


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(HELP)
        return 0
    from trainer.config.compose import Composer, parse, plain

    args = parse(argv)
    if args != argparse.Namespace(**(vars(parse([])) | {"overrides": args.overrides})):
        raise UserError("summary takes key=value words alone. See trainer summary --help.")
    composer = Composer(args)
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    refuse_no_part(args.overrides)

    starting()

    from trainer.builders import factories
    from trainer.config.targets import check_options
    from trainer.system.torch_internals import leave_compiler_unimported

    leave_compiler_unimported()
    check_options("model", config["model"])
    refuse_in_training(keys_in(args.overrides), [config])
    shape, num_classes = factories.announced_size(config["data"])
    model = factories.make_model(config, shape, num_classes)
    print(table(model, shape, factories.input_size(model, shape)))
    return 0


def refuse_no_part(words: list[str]) -> None:
    """Raises UserError that names the first key of a training that changes nothing here."""
    for word in words:
        (key,) = keys_in([word])
        group = ".".join(key.split(".")[:2])
        if key.partition(".")[0] not in GROUPS or group in IDLE:
            raise UserError(
                f"{word[:300]}: plays no part in the table of layers: only model, data and their "
                "options that shape the layers do. Leave the key out."
            )


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


Row = tuple[str, str, tuple[int, ...], int, int]


def layer_rows(model: nn.Module, input_shape: tuple[int, ...]) -> list[Row]:
    """(name, type, output shape without the batch, parameters, multiply-adds) of each leaf, by
    one forward pass of a single picture in eval mode under torch's FLOP counter."""
    import torch

    from trainer.system.torch_internals import counting_flops

    rows: list[Row] = []
    total = 0

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            nonlocal total
            now = counter.get_total_flops()
            seen = {row[0] for row in rows}
            own = 0 if name in seen else sum(p.numel() for p in module.parameters())
            rows.append((name, kind_of(module), tuple(output.shape[1:]), own, (now - total) // 2))
            total = now

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(record(name)) for name, module in leaves]
    with torch.no_grad(), counting_flops() as counter:
        model.eval()(torch.zeros(input_shape))
    for handle in handles:
        handle.remove()
    return rows


def kind_of(module: nn.Module) -> str:
    """Its class; of dropout also how much, for no other column tells."""
    name = type(module).__name__
    return f"{name} {module.p:g}" if name.startswith("Dropout") else name


def show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
