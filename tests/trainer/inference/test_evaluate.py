"""`evaluate` by the command line: its figures against scikit-learn's, and where it writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn import metrics as sklearn_metrics
from torch.nn import functional as F

from data.types import Split
from models.mlp import MLP
from tests.helpers.commands import ROOT, Finished, TrainedRun, run_trainer
from trainer import checkpoints
from trainer.cli.evaluate import default_folder
from trainer.config import choices
from trainer.evaluation import plots
from trainer.evaluation.findings import Confusion, Findings, Mistake
from trainer.inference import evaluate

Dispatch = Callable[..., Finished]
ALL_RIGHT = Confusion(torch.tensor([[0, 0, 1], [1, 1, 1]]), 2)


@pytest.fixture
def best(default_run: TrainedRun, tmp_path: Path) -> Path:
    """The default run's best checkpoint in a folder of this test's, where results may lie."""
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(default_run.folder / "metrics.jsonl", folder.parent)
    return Path(shutil.copy(default_run.best, folder)).relative_to(tmp_path)


def results_in(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(folder, "evaluation.json").read_text())
    return content


def evaluated(dispatch: Dispatch, *words: str | Path) -> Finished:
    done = dispatch("evaluate", *map(str, words))
    assert done.returncode == 0, done.output
    return done


def test_all_figures_are_those_of_an_independent_computation(
    default_run: TrainedRun, best: Path, dispatch: Dispatch
) -> None:
    done = evaluated(dispatch, best)
    results = results_in("run/evaluation/test")
    entries = torch.load(best, weights_only=True)
    net = MLP((1, 28, 28), 10)
    net.load_state_dict(entries["model"])
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = torch.from_numpy(file["test_images"]), file["test_labels"]
    pictures = (images[:, None].double() / 255 - entries["mean"][0]) / entries["std"][0]
    with torch.no_grad():
        logits = net.double()(pictures)
    said, probability = logits.argmax(1).numpy(), logits.softmax(1).max(1).values.numpy()

    assert results["loss"] == pytest.approx(
        F.cross_entropy(logits, torch.from_numpy(labels).long()).item(), rel=1e-5
    )
    assert results["accuracy"] == sklearn_metrics.accuracy_score(labels, said)
    assert results["top5_accuracy"] == sklearn_metrics.top_k_accuracy_score(labels, logits, k=5)
    assert results["confusion"] == sklearn_metrics.confusion_matrix(labels, said).tolist()
    expected = sklearn_metrics.precision_recall_fscore_support(labels, said)
    for key, column in zip(("precision", "recall", "f1", "count"), expected, strict=True):
        assert [row[key] for row in results["per_class"]] == pytest.approx(list(column))
    for kind in ("macro", "weighted"):
        averages = sklearn_metrics.precision_recall_fscore_support(labels, said, average=kind)
        found = results["averages"][kind]
        assert [found[key] for key in ("precision", "recall", "f1")] == pytest.approx(averages[:3])
    bins = np.ceil(probability * 15).astype(int)
    gaps = [
        abs((said == labels)[bins == m].sum() - probability[bins == m].sum()) for m in range(16)
    ]
    assert results["calibration_error"] == pytest.approx(sum(gaps) / 1000, abs=1e-5)
    wrong = np.flatnonzero(said != labels)
    surest = wrong[np.argsort(-probability[wrong], kind="stable")][:25]
    assert [one["index"] for one in results["mistakes"]] == surest.tolist()
    for one in results["mistakes"]:
        assert (one["label_index"], one["predicted_index"]) == (
            labels[one["index"]],
            said[one["index"]],
        )
        assert (one["label"], one["predicted"]) == (
            str(one["label_index"]),
            str(one["predicted_index"]),
        )
        assert one["file"] is None  # the set is one file
        assert one["probability"] == pytest.approx(probability[one["index"]], abs=1e-5)

    assert results["checkpoint"] == str(best)
    assert results["digest"] == entries["digest"]
    assert results["same_data"] is True
    assert results["data"]["_target_"] == "data.mnist.load_mnist_5k"
    assert (results["split"], results["num_images"], results["flip"]) == ("test", 1000, False)
    assert results["images_per_s"] == pytest.approx(1000 / results["seconds"])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("test split, 1,000 images on ")
    assert f"accuracy {default_run.summary['test_accuracy']:.4f}" in lines[0]
    assert f"loss {default_run.summary['test_loss']:.4f}" in lines[0]
    assert f"top-5 accuracy {results['top5_accuracy']:.4f}" in lines[1]
    assert f"calibration error {results['calibration_error']:.4f}" in lines[1]
    rows = [line.split() for line in lines[4:14]]
    assert [row[:2] for row in rows] == [[str(k), "100"] for k in range(10)]
    assert [float(row[3]) for row in rows] == pytest.approx(list(expected[1]), abs=5e-5)
    cells = [[0 if x == "." else int(x) for x in line.split()[1:]] for line in lines[19:29]]
    assert cells == results["confusion"]
    macro, weighted = (line.split() for line in lines[14:16])
    assert macro[:4] == [
        "macro",
        "average",
        "1,000",
        f"{results['averages']['macro']['precision']:.4f}",
    ]
    assert weighted[-1] == f"{results['averages']['weighted']['f1']:.4f}"
    worst = [line.split() for line in lines[30:]][:7]
    assert worst[:2] == [
        ["most", "confident", "mistakes:"],
        ["number", "true", "predicted", "probability"],
    ]
    for row, one in zip(worst[2:], results["mistakes"][:5], strict=True):
        assert row == [
            str(one["index"]),
            one["label"],
            one["predicted"],
            f"{one['probability']:.4f}",
        ]


def test_where_results_go(best: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the run, each split and each checkpoint in a folder of its own; else beside the file."""
    quick = "limit_batches=1"
    done = evaluated(dispatch, best, "split=val", quick)
    assert done.stdout.splitlines()[-1] == (
        "written to run/evaluation/val_limit_batches=1: evaluation.json, confusion.png, "
        "mistakes.png, predictions.csv, images.json"
    )
    for name in ("confusion.png", "mistakes.png"):
        with Image.open(Path("run/evaluation/val_limit_batches=1", name)) as image:
            assert min(image.size) > 300
    shutil.copy(best, best.with_name("last.pth"))
    evaluated(dispatch, best.with_name("last.pth"), quick)
    evaluated(dispatch, best, "data=mnist_5k", "data.hflip=true", "--flip", quick)
    names = {folder.name for folder in Path("run/evaluation").iterdir()}
    others = {"last_test_limit_batches=1", "mnist_5k_test_flip_data.hflip=true_limit_batches=1"}
    assert names == {"val_limit_batches=1", *others}
    shutil.copy(best, "alone.pth")
    evaluated(dispatch, "alone.pth", quick)
    evaluated(dispatch, "alone.pth", quick, "-o", "there/and/then")
    assert (
        results_in("alone_evaluation/test_limit_batches=1")["accuracy"]
        == (results_in("there/and/then")["accuracy"])
    )
    monkeypatch.chdir("run/checkpoints")
    evaluated(dispatch, "best.pth", quick, "device=cpu")
    assert Path("../evaluation/test_limit_batches=1/evaluation.json").is_file()


def test_a_folders_name_is_one_name_whatever_the_values_are() -> None:
    values = {"data": "image_folder", "data.root": "/my/../pictures é", "data.shape": "[3,32,32]"}
    folder = default_folder(Path("net.pth"), "val", values, False)
    assert str(folder) == (
        "net_evaluation/image_folder_val_data.root=-my-..-pictures-_data.shape=-3-32-32-"
    )
    long = default_folder(Path("net.pth"), "test", {"data.root": 300 * "a"}, False)
    assert len(long.name) == 120


def test_what_is_written_below_a_mistake_fits_its_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []

    def grid(images: torch.Tensor, lines: Sequence[str]) -> Image.Image:
        captions.extend(lines)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(plots, "picture_grid", grid)
    mistakes = [Mistake(8, 0, 1, 0.999)]
    images = Split(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9).long())
    evaluate.drawn(Findings(ALL_RIGHT, 1.0, 0.0, mistakes), ["cat", "dog"], images)
    assert captions == ["dog 100%\ntrue cat\nnumber 8"]
    for line in (*captions[0].split("\n"), "number 1000000"):
        assert plots._cut(line, plots.TEXT, plots.TILE) == line
    assert plots._cut("100.0 %, number 100", plots.TEXT, plots.TILE).endswith("...")


def test_what_was_measured_is_told_though_it_cannot_be_written(
    best: Path, dispatch: Dispatch
) -> None:
    Path("file").write_text("in the way")
    done = dispatch("evaluate", str(best), "-o", "file/results")
    assert done.returncode == 2
    assert "1,000 images" in done.stdout
    assert "-o DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    early = dispatch("evaluate", str(best), "-o", "file")
    assert (early.returncode, early.stdout) == (2, "")
    assert "file: this is no folder" in early.stderr


def test_flipping_averages_the_logits(best: Path, dispatch: Dispatch) -> None:
    refused = dispatch("evaluate", str(best), "--flip")
    assert refused.returncode == 2
    assert "data.hflip=false" in refused.stderr
    evaluated(dispatch, best, "--flip", "data.hflip=true", "-o", "flipped")
    entries = torch.load(best, weights_only=True)
    net = MLP((1, 28, 28), 10)
    net.load_state_dict(entries["model"])
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = (
            torch.from_numpy(file["test_images"]),
            torch.from_numpy(file["test_labels"]),
        )
    x = (images[:, None].float() / 255 - entries["mean"][0]) / entries["std"][0]
    with torch.no_grad():
        logits = (net(x) + net(x.flip(3))) / 2
    results = results_in("flipped")
    assert results["flip"] is True
    assert results["accuracy"] == (logits.argmax(1) == labels).double().mean().item()
    assert results["loss"] == pytest.approx(F.cross_entropy(logits, labels.long()).item(), rel=1e-4)


def synthetic_checkpoint(file: Path, template: Path, num_classes: int) -> Path:
    """A net that has learned nothing, for made-up images of so many classes."""
    entries = checkpoints.read(template)
    config = yaml.safe_load(entries["config"])
    data = choices.options("data", "synthetic")
    config["data"] = {
        **data,
        "num_classes": num_classes,
        "num_test": max(600, num_classes),
        "num_train": max(4000, 20 * num_classes),
    }
    torch.manual_seed(0)
    entries["model"] = MLP((1, 28, 28), num_classes).state_dict()
    entries["classes"] = [f"kind {k}" for k in range(num_classes)]
    entries["config"] = yaml.safe_dump(config)
    checkpoints.write(file, entries)
    return file


def test_few_classes_have_no_top_5_and_many_no_matrix(
    best: Path, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    few = evaluated(dispatch, synthetic_checkpoint(Path("few.pth"), best, 3))
    assert "top-5" not in few.stdout
    assert results_in("few_evaluation/test")["top5_accuracy"] is None
    assert "predicted, of each true class" in few.stdout

    some = evaluated(dispatch, synthetic_checkpoint(Path("some.pth"), best, 12))
    assert "predicted, of each true class" in some.stdout
    monkeypatch.setenv("COLUMNS", "60")
    narrow = evaluated(dispatch, "some.pth")
    assert "most common confusions" in narrow.stdout

    many = evaluated(dispatch, synthetic_checkpoint(Path("many.pth"), best, 120))
    assert "20 of 120 classes, those with the lowest F1" in many.stdout
    confusion = np.array(results_in("many_evaluation/test")["confusion"])
    np.fill_diagonal(confusion, 0)
    listed = many.stdout.partition("most common confusions:\n")[2].splitlines()[1:11]
    assert [int(line.split()[4]) for line in listed] == sorted(confusion.flatten())[:-11:-1]
    for line in listed:
        _, was, _, said, count = line.split()[:5]
        assert confusion[int(was), int(said)] == int(count)
    assert "confusion_cells" not in results_in("many_evaluation/test")


@pytest.mark.slow
def test_thousands_of_classes_have_cells_instead_of_a_matrix(
    best: Path, dispatch: Dispatch
) -> None:
    for num, key, other in (
        (1000, "confusion", "confusion_cells"), (1001, "confusion_cells", "confusion"),
    ):  # fmt: skip
        done = evaluated(dispatch, synthetic_checkpoint(Path(f"{num}.pth"), best, num), "-o", "out")
        results = results_in("out")
        assert other not in results
        table = np.array(results[key])
        if key == "confusion_cells":
            assert table.tolist() == sorted(table.tolist())
            assert (table[:, 2] > 0).all()
            cells, table = table, np.zeros((num, num), dtype=int)
            table[cells[:, 0], cells[:, 1]] = cells[:, 2]
        assert table.shape == (num, num)
        assert table.sum() == results["num_images"]
        assert table.sum(axis=1).tolist() == [row["count"] for row in results["per_class"]]
        assert table.trace() == pytest.approx(results["accuracy"] * results["num_images"])
        assert "most common confusions" in done.stdout
        with Image.open("out/confusion.png") as image:
            assert max(image.size) < 1500


def test_a_net_without_mistakes_leaves_no_image_of_them(tmp_path: Path) -> None:
    images = Split(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9).long())
    results: dict[str, Any] = {"classes": ["猫", "dog"], "loss": None, "split": "test"}
    bad, good = (Findings(ALL_RIGHT, 1.0, 0.0, some) for some in ([Mistake(8, 0, 1, 0.9)], []))
    assert evaluate.write(tmp_path, results, bad, images, [])[2] == "mistakes.png"
    assert (tmp_path / "mistakes.png").exists()
    written = evaluate.write(tmp_path, results, good, images, [])
    assert written == ["evaluation.json", "confusion.png", "predictions.csv", "images.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(written)
    assert results_in(tmp_path) == results


def test_as_a_process_on_another_split(default_run: TrainedRun, tmp_path: Path) -> None:
    done = run_trainer(
        "evaluate", str(default_run.best), "split=val", "device=cpu", "-o", "val", cwd=tmp_path
    )
    assert done.returncode == 0, done.output
    assert f"accuracy {default_run.summary['val_accuracy']:.4f}" in done.stdout
    assert results_in(tmp_path / "val")["accuracy"] == default_run.summary["val_accuracy"]
    assert done.stderr == ""
