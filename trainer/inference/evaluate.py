"""Evaluation of a checkpoint: metrics of a split on the terminal, in a file and as images."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.loading.batches import fits
from data.types import Dataset, Split
from trainer import checkpoints
from trainer.builders import datasets, idle_keys, losses, networks, restore
from trainer.checkpoints import meaning
from trainer.checkpoints.entries import read
from trainer.checkpoints.finite import not_finite
from trainer.config import plain_yaml, stored
from trainer.config.targets import check_options, locate, parameters_of
from trainer.errors import TrainingError, UserError
from trainer.evaluation import plots
from trainer.evaluation.findings import Examiner, Findings
from trainer.evaluation.metrics import Metrics, no_better_than_guessing
from trainer.inference.evaluation_data import is_same_data, load, relabelled
from trainer.inference.evaluation_report import as_json, figures, show
from trainer.runs import image_keys, predictions, readings
from trainer.runs.folder import run_of
from trainer.runs.selection import std_over_seeds
from trainer.system.device import autocast, pick_device
from trainer.system.files import write_bytes
from trainer.system.memory import keep_freed_memory
from trainer.system.seeds import set_deterministic
from trainer.system.start import torch_is_imported
from trainer.system.threads import pick_num_threads, set_num_threads
from trainer.system.versions import versions
from trainer.text.printable import printable
from trainer.text.values import listed
from trainer.training import loop
from trainer.training.batches import BatchesWithBar

FIXED = ("data.shape", "data.fit", "data.resize", "data.num_classes", "data.mean", "data.std")
NUM_MISTAKES = 25
OTHER_DATA = (
    "Warning: these are not the data, or not the split, that the model was trained with: files "
    "were added, removed or changed, a key of data was given, or an earlier version of this "
    "program, which split otherwise, trained it. Images of this split may have been trained on, "
    "and the figures be too good. Evaluate with the files as they were then and without such "
    "keys, or on images that the model has never seen: data=<another dataset>.\n"
)


def evaluate(
    checkpoint: Path, split: str, values: Mapping[str, str], flip: bool, folder: Path
) -> None:
    """Measure a checkpoint on a split, and show and write what was found.

    Args:
        values: the keys that were given, without `split`.
        flip: average each image's outputs with those of its mirror image.
        folder: where the results go.

    Raises UserError, or TrainingError if the model's outputs are not finite."""
    torch_is_imported()
    keep_freed_memory()
    entries = read(checkpoint)
    config = configured(entries, values, flip)
    device = pick_device(config["device"], config["layers"])
    set_deterministic(config["deterministic"])
    model = restore.restore(entries, config)
    dataset = load(config["data"], entries, values if split == "test" else None)
    images = relabelled(getattr(dataset, split), dataset.classes, entries["classes"])
    same_data = is_same_data(dataset, entries, config["data"], values)
    if same_data is False:
        print(OTHER_DATA)
    how = meaning.probabilities_of(entries, plain_yaml.parse(entries["config"]))
    examiner = Examiner(num_mistakes=NUM_MISTAKES, probabilities=how)
    metrics = measure(model, entries, config, device, dataset, images, split, flip, examiner)
    if count := examiner.num_not_finite():
        raise TrainingError(no_result(checkpoint, entries, count, config["precision"]))
    noted = note_reading(checkpoint, entries, dataset, metrics) if split == "test" else None
    findings = examiner.findings()
    results = {
        "checkpoint": str(checkpoint),
        "digest": checkpoints.digest(entries),
        "epoch": entries["epoch"],
        "split": split,
        "data": config["data"],
        "dataset": dataset.test_set_id,
        "test_sha256": dataset.test_sha256 if split == "test" else None,
        "same_data": same_data,
        "flip": flip,
        "probabilities": how,
        **{key: config[key] for key in ("limit_batches", "precision", "layers")},
        "device": str(device),
        "versions": versions(),
        **figures(metrics, findings, entries["classes"], images.index_at, images.file_at),
    }
    named = [f"{key}={values[key]}" for key in ("data", "data.root") if key in values]
    show(results, findings.confusion, named)
    measured = images.labels[: metrics.num_images]
    if line := no_better_than_guessing(measured, entries["classes"], metrics.accuracy):
        print(f"\n{printable(line)}")
    if how in meaning.EXPLAINED:
        print(f"\n{meaning.EXPLAINED[how]}")
    if noted is not None:
        run = run_of(checkpoint)
        std = std_over_seeds(run, dataset.test_set_id) if run is not None else None
        print(f"\n{printable(noted.told(metrics.accuracy, metrics.num_images, std))}")
    rows = predictions.rows_of(
        split, examiner.predictions(), entries["classes"], images.index_at, images.file_at
    )
    written = write(folder, results, findings, images, rows)
    print(f"\nwritten to {folder}: {', '.join(written)}")


def note_reading(
    checkpoint: Path, entries: dict[str, Any], dataset: Dataset, metrics: Metrics
) -> readings.Readings | None:
    """Note in the ledger that a test split was read; a fold in its place is none."""
    if dataset.held_out != "test":
        return None
    run = run_of(checkpoint)
    ledger = readings.ledger_of(run or checkpoint, in_run=run is not None)
    return readings.note(
        ledger, command="evaluate", run=readings.name_in(ledger, run or checkpoint),
        checkpoint=str(checkpoint),
        digest=checkpoints.digest(entries),
        weights=checkpoints.weights_sha256(entries["model"]), dataset=dataset.test_set_id,
        pixels=dataset.test_pixels, split="test", num_images=metrics.num_images,
    )  # fmt: skip


def measure(
    model: nn.Module,
    entries: Mapping[str, Any],
    config: Mapping[str, Any],
    device: torch.device,
    dataset: Dataset,
    images: Split,
    split: str,
    flip: bool,
    examiner: Examiner,
) -> Metrics:
    """One pass over the images, in which the examiner collects its findings."""
    preprocess = networks.make_preprocess(config, model, entries["mean"], entries["std"], device)
    batches = datasets.evaluation_batches(
        config, preprocess, device, images,
        resident=fits(device, images.num_bytes), num_workers=config["num_workers"],
    )  # fmt: skip
    cost = networks.measure_cost(model, dataset.shape)
    set_num_threads(
        pick_num_threads(config["num_threads"], cost.macs * batches.batch_size), config["layers"]
    )
    if flip:
        average_over_mirror(model)
    return loop.evaluate(
        model, losses.make_evaluation_loss(config), BatchesWithBar(batches, split),
        autocast(config["precision"], device), examiner,
    )  # fmt: skip


def configured(entries: Mapping[str, Any], values: Mapping[str, str], flip: bool) -> dict[str, Any]:
    """Configuration of the checkpoint with these keys changed. Raises UserError."""
    config = restore.usable(entries, values)
    fit = meaning.fit_of(entries, config)
    config, notes = stored.own_sources(config, values)
    for note in notes:
        print(note, file=sys.stderr)
    config = restore.reconfigure(config, values)
    if "limit_batches" not in values:  # a quick training deserves a whole evaluation
        config["limit_batches"] = 0
    for key in FIXED:
        if key in values:
            raise UserError(f"{key}={values[key]}: the checkpoint has fixed it. Leave the key out.")
    for key in (f"loss.{name}" for name in losses.OF_TRAINING):
        if key in values:
            raise UserError(
                f"{key}={values[key]}: evaluate reports the loss without it, as a run's test row "
                "does. Leave the key out."
            )
    if not flip:
        idle_keys.refuse(values, ("data.hflip",), "it only says whether --flip may be given")
    config["data"]["shape"] = entries["shape"]
    # Images of another dataset or folder become what predict, too, makes of them.
    as_trained = {"fit": fit, "resize": entries["resize"] if fit == "crop" else None}
    if entries.get("pixel_range") and "data.pixel_range" not in values:
        as_trained["pixel_range"] = entries["pixel_range"]
    takes, _ = parameters_of(locate("data", config["data"]["_target_"]))
    config["data"].update({key: value for key, value in as_trained.items() if key in takes})
    for group in ("data", "loss"):
        check_options(group, config[group])
    if flip and not config["data"].get("hflip"):
        raise UserError(
            "--flip: data.hflip=false: in this dataset a mirrored image need not be of the same "
            "class. data.hflip=true says that it is."
        )
    return config


def average_over_mirror(model: nn.Module) -> None:
    """Make the model give the mean of its outputs for each image and its mirror image."""
    forward = model.forward

    def averaged(images: Tensor) -> Tensor:
        return (forward(images) + forward(images.flip(-1))) / 2

    model.forward = averaged


def no_result(path: Path, entries: Mapping[str, Any], count: int, precision: str) -> str:
    """Message on outputs that are not finite: an argmax of NaN is a class like any other, and would
    count."""
    if names := not_finite(entries["model"]):
        why = f"It holds NaN or infinity in {listed(names)}. Take an earlier checkpoint."
    elif precision in ("fp16", "bf16"):
        why = f"precision={precision} may be too narrow for this model; try precision=fp32."
    else:
        why = "Its weights are finite, but too large, or its mean and std do not fit these images."
    return (
        f"{path}: the model's output for {count:,} of the images is not finite. Nothing was "
        f"written.\n{why}"
    )


def write(
    folder: Path,
    results: Mapping[str, Any],
    findings: Findings,
    images: Split,
    rows: Iterable[Sequence[object]],
) -> list[str]:
    """Write evaluation.json, predictions.csv (its rows), images.json and the pictures, each whole
    or not at all. Returns their names. Raises UserError if nothing can be written there."""
    files = {
        "evaluation.json": as_json(results).encode(),
        **drawn(findings, results["classes"], images),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_bytes(folder / name, content)
        image_keys.write(folder, results["classes"], {results["split"]: images.keys_by_place()})
        predictions.write(folder / predictions.NAME, rows)
        if "mistakes.png" not in files:  # an earlier evaluation may have left some
            (folder / "mistakes.png").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: the results cannot be written there: {error.strerror}. -o DIR names "
            "another folder."
        ) from error
    return [*files, predictions.NAME, image_keys.NAME]


def drawn(findings: Findings, classes: Sequence[str], split: Split) -> dict[str, bytes]:
    """Confusion matrix and mistakes as PNG files, by name."""
    images = {"confusion.png": plots.confusion(findings.confusion.cells, classes)}
    if findings.mistakes:
        named = {k for mistake in findings.mistakes for k in (mistake.label, mistake.predicted)}
        names = {k: plots.drawable(classes[k], k) for k in named}
        images["mistakes.png"] = plots.picture_grid(
            split.images_at(split.labels.new_tensor([m.index for m in findings.mistakes])),
            [
                f"{names[m.predicted]} {m.probability:.0%}\ntrue {names[m.label]}\n"
                f"number {split.index_at(m.index)}"
                for m in findings.mistakes
            ],
        )
    files = {}
    for name, image in images.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files[name] = buffer.getvalue()
    return files
