"""`trainer evaluate CHECKPOINT [key=value ...]`: metrics on the test split, per class."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.commands.arguments import MACHINE_KEYS, existing, parse_words
from trainer.errors import UserError

KEYS = (*MACHINE_KEYS, "split", "limit_batches", "data", "data.", "loss", "loss.")
SPLITS = ("test", "val", "train")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="trainer evaluate",
        description="Loss and accuracy of a checkpoint, and precision, recall and F1 per class.",
        epilog="Keys: split=test (or val, train), data=<another set>, data.root=..., device=..., "
        "precision=..., loss=..., limit_batches=... The pictures of another set are brought to "
        "the shape that the net was trained on, and normalised as then.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth file of a run, such as best.pth")
    args, values = parse_words(parser, argv, KEYS)
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise UserError(f"split={split}: must be one of {', '.join(SPLITS)}.")

    existing(args.checkpoint)

    from trainer import checkpoint, loop, parts, restore, runtime
    from trainer.metrics import per_class
    from trainer.targets import check_options

    runtime.leave_compiler_unimported()
    entries = checkpoint.read(args.checkpoint)
    config = restore.reconfigure(restore.stored_config(entries), values)
    if "limit_batches" not in values:  # a quick training deserves a whole evaluation
        config["limit_batches"] = 0
    for key in ("data.shape", "data.num_classes"):
        if key in values:
            raise UserError(f"{key}={values[key]}: the checkpoint has fixed it. Leave the key out.")
    config["data"]["shape"] = entries["shape"]
    for group in ("data", "loss"):
        check_options(group, config[group])
    device = runtime.pick_device(config["device"], config["layers"])
    runtime.check_precision(config["precision"], device)
    runtime.set_deterministic(config["deterministic"])
    model = restore.restore(entries, config)
    dataset = parts.load_data(config["data"])
    if len(dataset.classes) != len(entries["classes"]):
        raise UserError(
            f"data.num_classes={len(dataset.classes)}: the checkpoint tells apart "
            f"{len(entries['classes'])} classes ({', '.join(entries['classes'][:10])} ...); "
            "evaluate it on a set with the same."
        )
    if list(dataset.classes) != list(entries["classes"]):
        print("The class names below are the checkpoint's; those of this data set differ.")
    cost = parts.measure(model, dataset.shape)
    batches = restore.evaluation(config, model, entries, getattr(dataset, split), device)
    runtime.set_num_threads(
        runtime.pick_num_threads(config["num_threads"], cost.macs * batches.batch_size),
        config["layers"],
    )
    metrics = loop.evaluate(
        model, parts.make_loss(config), batches,
        runtime.autocast(config["precision"], device), with_confusion=True,
    )  # fmt: skip
    assert metrics.confusion is not None
    print(f"{split} split, {metrics.num_images:,} pictures on {device}: "
          f"loss {metrics.loss:.4f}, accuracy {metrics.accuracy:.4f}, "
          f"{metrics.images_per_s:,.0f} images/s\n")  # fmt: skip
    print_classes(entries["classes"], per_class(metrics.confusion))
    return 0


def print_classes(classes: list[str], rows: list[dict[str, float]]) -> None:
    width = max(5, *map(len, classes))
    print(f"{'class':<{width}}  pictures  precision  recall      F1")
    for name, row in zip(classes, rows, strict=True):
        print(f"{name:<{width}}  {row['count']:>8,}  {row['precision']:>9.4f}  "
              f"{row['recall']:.4f}  {row['f1']:.4f}")  # fmt: skip
