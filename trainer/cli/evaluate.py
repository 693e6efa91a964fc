"""`trainer evaluate CHECKPOINT [key=value ...]`: how good a net is, in all and class by class."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.builders import idle_keys
from trainer.cli.arguments import MACHINE_KEYS, existing, parse_words
from trainer.errors import TrainingError, UserError
from trainer.inference.evaluation_data import is_same_data, load, relabelled
from trainer.inference.evaluation_report import as_json, figures, show

if TYPE_CHECKING:
    from torch import Tensor, nn

    from data.types import Split
    from trainer.evaluation.findings import Findings

KEYS = (*MACHINE_KEYS, "split", "limit_batches", "data", "data.", "loss", "loss.")
FIXED = ("data.shape", "data.fit", "data.resize", "data.num_classes", "data.mean", "data.std")
SPLITS = ("test", "val", "train")
NUM_MISTAKES = 25
LONGEST_NAME = 120  # characters of a folder's
OTHER_DATA = (
    "Warning: these are not the data, or not the split, that the net was trained with: files were "
    "added, removed or changed, a key of data was given, or an earlier version of this program, "
    "which split otherwise, trained it. Pictures of this split may have been trained on, and the "
    "figures be too good. Evaluate with the files as they were then and "
    "without such keys, or on pictures that the net has never seen: data=<another set>.\n"
)


def main(argv: list[str]) -> int:
    args, values = parse(argv)
    split = values.pop("split", "test")
    if split not in SPLITS:
        raise UserError(f"split={split}: must be one of {', '.join(SPLITS)}.")
    existing(args.checkpoint)
    folder = args.output or default_folder(args.checkpoint, split, values, args.flip)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: this is no folder; -o DIR names another.")

    from data.loading.batches import fits
    from trainer import checkpoints
    from trainer.builders import factories, restore
    from trainer.checkpoints import meaning
    from trainer.checkpoints.entries import read
    from trainer.config import plain_yaml
    from trainer.evaluation.findings import Examiner
    from trainer.evaluation.metrics import no_better_than_guessing
    from trainer.system.device import autocast, check_precision, pick_device
    from trainer.system.memory import keep_freed_memory
    from trainer.system.seeds import set_deterministic
    from trainer.system.threads import pick_num_threads, set_num_threads
    from trainer.system.torch_internals import leave_compiler_unimported
    from trainer.system.versions import versions
    from trainer.text.printable import printable
    from trainer.training import loop
    from trainer.training.batches import BarredBatches

    leave_compiler_unimported()
    keep_freed_memory()
    entries = read(args.checkpoint)
    config = configured(entries, values, args.flip)
    device = pick_device(config["device"], config["layers"])
    check_precision(config["precision"], device)
    set_deterministic(config["deterministic"])
    model = restore.restore(entries, config)
    dataset = load(config["data"], entries, values if split == "test" else None)
    pictures = relabelled(getattr(dataset, split), dataset.classes, entries["classes"])
    how = meaning.probabilities_of(entries, plain_yaml.parse(entries["config"]))
    same_data = is_same_data(dataset, entries, config["data"], values)
    if same_data is False:
        print(OTHER_DATA)
    preprocess = restore.preprocess(config, model, entries, device)
    batches = factories.evaluation_batches(
        config, preprocess, device, pictures,
        resident=fits(device, pictures.num_bytes), num_workers=config["num_workers"],
    )  # fmt: skip
    cost = factories.measure(model, dataset.shape)
    set_num_threads(
        pick_num_threads(config["num_threads"], cost.macs * batches.batch_size),
        config["layers"],
    )
    if args.flip:
        average_over_mirror(model)
    examiner = Examiner(num_mistakes=NUM_MISTAKES, probabilities=how)
    metrics = loop.evaluate(
        model, factories.make_evaluation_loss(config), BarredBatches(batches, split),
        autocast(config["precision"], device), examiner,
    )  # fmt: skip
    if count := examiner.num_not_finite():
        raise TrainingError(no_result(args.checkpoint, entries, count, config["precision"]))
    findings = examiner.findings()

    results = {
        "checkpoint": str(args.checkpoint),
        "digest": checkpoints.digest(entries),
        "epoch": entries["epoch"],
        "split": split,
        "data": config["data"],
        "same_data": same_data,
        "flip": args.flip,
        "probabilities": how,
        **{key: config[key] for key in ("limit_batches", "precision", "layers")},
        "device": str(device),
        "versions": versions(),
        **figures(metrics, findings, entries["classes"], pictures.file_at),
    }
    named = [f"{key}={values[key]}" for key in ("data", "data.root") if key in values]
    show(results, findings.confusion, named)
    measured = pictures.labels[: metrics.num_images]
    if line := no_better_than_guessing(measured, entries["classes"], metrics.accuracy):
        print(f"\n{printable(line)}")
    if how in meaning.EXPLAINED:
        print(f"\n{meaning.EXPLAINED[how]}")
    written = write(folder, results, findings, pictures)
    print(f"\nwritten to {folder}: {', '.join(written)}")
    return 0


def parse(argv: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(
        prog="trainer evaluate",
        description="Loss, accuracy and calibration of a checkpoint, precision, recall and F1 per "
        "class, the confusion matrix and the surest mistakes: on the terminal, as evaluation.json "
        "and as pictures.",
        epilog="Keys: split=test (or val, train), data=<another set>, data.root=..., device=..., "
        "precision=..., loss=..., limit_batches=... The pictures of another set are brought to "
        "the shape that the net was trained on, and normalised as then.",
    )
    parser.add_argument("checkpoint", type=Path, help="a .pth file of a run, such as best.pth")
    parser.add_argument(
        "folder", nargs="?", metavar="IMAGE_FOLDER",
        help="a folder with one folder of images per class, as data=image_folder data.root=FOLDER "
        "takes it; of one that has no test split and was not trained on, all images are evaluated",
    )  # fmt: skip
    parser.add_argument(
        "--flip", action="store_true",
        help="the mean of the outputs of each picture and its mirror image, for sets with "
        "data.hflip=true",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="where the results go (default: evaluation/<split>/ in the run's folder, or "
        "<name>_evaluation/<split>/ beside a checkpoint that lies in none; keys of the data, the "
        "loss and the limit become part of the name)",
    )  # fmt: skip
    args, values = parse_words(parser, argv, KEYS)
    return args, with_folder(args.folder, values)


def with_folder(folder: str | None, values: Mapping[str, str]) -> dict[str, str]:
    """The keys, and those that a folder stands for. Raises UserError if it is none or if both were
    given."""
    if folder is None:
        return dict(values)
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: there is no such folder. evaluate CHECKPOINT IMAGE_FOLDER takes one with a "
            "folder of images per class."
        )
    for key in ("data", "data.root"):
        if key in values:
            raise UserError(
                f"{key}={values[key]}: the folder {folder} says already what is evaluated. Leave "
                "one of the two out."
            )
    return {**values, "data": "image_folder", "data.root": str(Path(folder).absolute())}


def default_folder(checkpoint: Path, split: str, values: Mapping[str, str], flip: bool) -> Path:
    """A folder for each checkpoint, split and what else was asked for, so that no results replace
    those of others."""
    folder = checkpoint.absolute().parent
    in_run = folder.name == "checkpoints" and (folder.parent / "metrics.jsonl").is_file()
    given = [f"{k}={v}" for k, v in values.items() if k not in (*MACHINE_KEYS, "data")]
    words = [*([values["data"]] if "data" in values else []), split, *(["flip"] if flip else [])]
    name = re.sub(r"[^A-Za-z0-9_.=-]+", "-", "_".join([*words, *given]))[:LONGEST_NAME]
    if not in_run:
        return checkpoint.parent / f"{checkpoint.stem}_evaluation" / name
    of_best = checkpoint.stem == "best"
    above = checkpoint.parent.parent if checkpoint.parent.name else Path("..")
    return above / "evaluation" / (name if of_best else f"{checkpoint.stem}_{name}")


def configured(entries: Mapping[str, Any], values: Mapping[str, str], flip: bool) -> dict[str, Any]:
    """The checkpoint's configuration with these keys changed. Raises UserError."""
    from trainer.builders import restore
    from trainer.checkpoints import meaning
    from trainer.config import stored
    from trainer.config.targets import check_options, locate, parameters_of

    checked = stored.configuration(entries, values)
    fit = meaning.fit_of(entries, checked)
    config, notes = stored.on_this_machine(checked, values)
    config, told = stored.own_sources(config, values)
    for note in notes + told:
        print(note, file=sys.stderr)
    config = restore.reconfigure(config, values)
    if "limit_batches" not in values:  # a quick training deserves a whole evaluation
        config["limit_batches"] = 0
    for key in FIXED:
        if key in values:
            raise UserError(f"{key}={values[key]}: the checkpoint has fixed it. Leave the key out.")
    if "loss.label_smoothing" in values:
        raise UserError(
            f"loss.label_smoothing={values['loss.label_smoothing']}: evaluate reports the loss "
            "without it, as a run's test row does. Leave the key out."
        )
    if not flip:
        idle_keys.refuse(values, ("data.hflip",), "it only says whether --flip may be given")
    config["data"]["shape"] = entries["shape"]
    # Images of another set or folder become what predict, too, makes of them.
    as_trained = {"fit": fit, "resize": entries["resize"] if fit == "crop" else None}
    if entries.get("pixel_range") and "data.pixel_range" not in values:
        as_trained["pixel_range"] = entries["pixel_range"]
    takes, _ = parameters_of(locate("data", config["data"]["_target_"]))
    config["data"].update({key: value for key, value in as_trained.items() if key in takes})
    for group in ("data", "loss"):
        check_options(group, config[group])
    if flip and not config["data"].get("hflip"):
        raise UserError(
            "--flip: data.hflip=false: in this set a mirrored picture need not be of the same "
            "class. data.hflip=true says that it is."
        )
    return config


def average_over_mirror(model: nn.Module) -> None:
    """From now on the net gives the mean of its outputs for each picture and its mirror image."""
    forward = model.forward

    def averaged(images: Tensor) -> Tensor:
        logits: Tensor = (forward(images) + forward(images.flip(-1))) / 2
        return logits

    model.forward = averaged


def no_result(path: Path, entries: Mapping[str, Any], count: int, precision: str) -> str:
    """Why there are no figures: an argmax of NaN is a class like any other, and would count."""
    from trainer.checkpoints.finite import listed, not_finite

    if names := not_finite(entries["model"]):
        why = f"It holds NaN or infinity in {listed(names)}. Take an earlier checkpoint."
    elif precision in ("fp16", "bf16"):
        why = f"precision={precision} may be too narrow for this net; try precision=fp32."
    else:
        why = "Its weights are finite, but too large, or its mean and std do not fit these images."
    return (
        f"{path}: the net's output for {count:,} of the images is not finite. Nothing was "
        f"written.\n{why}"
    )


def write(
    folder: Path, results: Mapping[str, Any], findings: Findings, pictures: Split
) -> list[str]:
    """evaluation.json and the pictures, each whole or not at all. Returns their names. Raises
    UserError if nothing can be written there."""
    from trainer.system.files import write_bytes

    files = {
        "evaluation.json": as_json(results).encode(),
        **drawn(findings, results["classes"], pictures),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_bytes(folder / name, content)
        if "mistakes.png" not in files:  # an earlier evaluation may have left some
            (folder / "mistakes.png").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: the results cannot be written there: {error.strerror}. -o DIR names "
            "another folder."
        ) from error
    return list(files)


def drawn(findings: Findings, classes: Sequence[str], pictures: Split) -> dict[str, bytes]:
    """The pictures as PNG files, by name."""
    from trainer.evaluation import plots

    images = {"confusion.png": plots.confusion(findings.confusion.cells, classes)}
    if findings.mistakes:
        named = {k for mistake in findings.mistakes for k in (mistake.was, mistake.said)}
        names = {k: plots.drawable(classes[k], k) for k in named}
        images["mistakes.png"] = plots.picture_grid(
            pictures.pictures_at(pictures.labels.new_tensor([m.index for m in findings.mistakes])),
            [
                f"said {names[m.said]} {m.probability:.0%}\nwas {names[m.was]}\nnumber {m.index}"
                for m in findings.mistakes
            ],
        )
    files = {}
    for name, image in images.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[name] = buffer.getvalue()
    return files
