"""`trainer summary [key=value ...]`: the layer table of a model on a dataset.

What imports torch, which takes seconds, is imported once the words are known to be right.
"""

from __future__ import annotations

import argparse

from trainer.builders.idle_keys import FRESH_WEIGHTS, keys_in
from trainer.config import knobs
from trainer.errors import UserError
from trainer.system.progress_bars import starting

HELP = """usage: trainer summary [key=value ...]

The layers of a model with output shapes, parameters and multiply-adds for one image, as they
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
    from trainer.config.compose import one_job, parse

    args = parse(argv)
    if args != argparse.Namespace(**(vars(parse([])) | {"overrides": args.overrides})):
        raise UserError("summary takes key=value words alone. See trainer summary --help.")
    config = one_job(args)
    refuse_no_part(args.overrides)
    starting()

    from trainer.inference.layer_table import table_of

    print(table_of(config, keys_in(args.overrides)))
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
