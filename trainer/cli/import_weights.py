"""`trainer import-weights FILE --model NAME -o FILE.pth`: their checkpoint.

What imports torch, which takes seconds, is imported once the words are known to be right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.builders import idle_keys
from trainer.cli.arguments import existing, parse_words, refuse_to_replace
from trainer.errors import UserError

TAKEN = "Give a .pth of torch.save, a .safetensors, or a MATLAB v5 .mat of MatConvNet."
# Keys of data that a checkpoint is made of.
DESCRIBING = ("shape", "fit", "resize", "num_classes", "mean", "std")


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    existing(args.file, TAKEN)
    idle_keys.refuse(values, idle_keys.FRESH_WEIGHTS, idle_keys.FROM_THE_FILE)
    if args.output.suffix != ".pth":
        raise UserError(f"-o {args.output}: a checkpoint's name ends in .pth.")
    refuse_to_replace(args.output, args.file, args.force)

    from trainer.inference.import_weights import import_weights

    import_weights(args.file, args.model, args.output, args.classes, values)
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer import-weights",
        description="Turn a torchvision .pth, a .safetensors or a MatConvNet .mat file into a "
        "checkpoint that evaluate, predict and weights= take.",
        epilog="Keys: model.<option>=..., data.shape=[3,224,224], data.num_classes=1000, "
        "data.mean=[...] and data.std=[...] in units of pixel / 255, data.fit=crop (or squash), "
        "data.resize=256, of what the file does not tell; or data=<the dataset that they were "
        "trained on> for all of these. "
        "torchvision's GoogLeNet needs model.batch_norm=true model.branch5x5=3 "
        "model.aux_pool=adaptive.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", required=True, help="the model that they are for, as model=")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument(
        "--classes", type=Path, metavar="FILE",
        help="a text with the names of the classes, one a line, in the order of the outputs",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    keys = ("model.", "data", "data.root", *(f"data.{key}" for key in DESCRIBING))
    return parse_words(parser, argv, keys)
