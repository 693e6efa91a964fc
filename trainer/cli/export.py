"""`trainer export CHECKPOINT --format FORMAT [-o FILE]`: a trained model for other programs.

What imports torch, which takes seconds, is imported once the words are known to be right.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from trainer.cli.arguments import parse_words, refuse_to_replace
from trainer.errors import UserError

KEYS = ("device", "layers", "trust")
ENDINGS = {
    "state_dict": (".state_dict.pth", ".pth", ".pt"), "safetensors": (".safetensors",),
    "pt2": (".pt2",), "onnx": (".onnx",),
}  # fmt: skip
GRAPHS = ("pt2", "onnx")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    paths = output_files(args)
    if args.format == "onnx":
        check_onnx_packages()

    from trainer.inference.export import export

    export(args.checkpoint, args.format, paths, values)
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer export",
        description="The model in a checkpoint for other programs. state_dict: its weights alone, "
        "as they are, with a .json beside them that describes them; safetensors: the same weights "
        "with the description in the file's metadata; pt2: torch.export's program; onnx. The last "
        "two hold the model in float32, whatever the precision of its training, on normalised "
        "images, (N, C, H, W) with any N, and the description inside. Each is loaded again and "
        "compared with the model before it is written.",
        epilog="Keys: device=... and layers=... of the model that it is compared with (default: "
        "cpu, torch), trust=...",
    )
    parser.add_argument("checkpoint", type=Path, help="a run's folder, or a .pth file")
    parser.add_argument("--format", choices=ENDINGS, required=True)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE",
        help="default: beside the checkpoint, as best.state_dict.pth, best.safetensors, best.pt2, "
        "best.onnx",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args, values = parse_words(parser, argv, KEYS)
    if values.get("layers") == "numpy" and args.format in GRAPHS:
        raise UserError(
            f"layers=numpy: a graph in {args.format} is made of torch's layers. Leave the key out; "
            "the weights are the same."
        )
    return args, values


def output_files(args: argparse.Namespace) -> list[Path]:
    """The file to write and, for a state_dict, its description. Raises UserError."""
    endings = ENDINGS[args.format]
    path: Path = args.output or args.checkpoint.with_name(args.checkpoint.stem + endings[0])
    if not path.name.endswith(endings):
        raise UserError(
            f"-o {path}: the name of a {args.format} file ends in {' or '.join(endings)}."
        )
    paths = [path, path.with_suffix(".json")] if args.format == "state_dict" else [path]
    for file in paths:
        refuse_to_replace(file, args.checkpoint, args.force)
    return paths


def check_onnx_packages() -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs {' and '.join(missing)}: pip install -e '.[export]'.")
