"""Images to classes by the command line: what nets say of digits, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.commands import ROOT, Finished, TrainedRun, run_trainer
from tests.helpers.digit_files import NUM_DIGITS, rows_of, write_digits
from trainer import checkpoints

Dispatch = Callable[..., Finished]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def test_predict_agrees_with_evaluate(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """The same weights see the same images, once as files: accuracy, and each probability."""
    from trainer.builders import datasets, networks, restore
    from trainer.config import stored

    done = dispatch("predict", str(default_run.best), str(digits), "--json", "--top-k=10")
    assert done.returncode == 0, done.output
    rows = rows_of(done)
    assert [Path(row["file"]).name[:3] for row in rows] == [f"{i:03}" for i in range(NUM_DIGITS)]

    entries = checkpoints.read(default_run.best)
    config = stored.configuration(entries)
    test = datasets.load_data(config["data"]).test
    model = restore.restore(entries, config)
    preprocess = networks.make_preprocess(
        config, model, entries["mean"], entries["std"], torch.device("cpu")
    )
    labels = test.labels
    with torch.no_grad():
        expected = model(preprocess(test.images[:NUM_DIGITS])).softmax(1)
    for row, truth in zip(rows, expected, strict=True):
        by_index = sorted(row["top"], key=lambda one: one["index"])
        assert [one["class"] for one in by_index] == [str(i) for i in range(10)]
        found = [one["probability"] for one in by_index]
        np.testing.assert_allclose(found, truth.numpy(), rtol=1e-4, atol=1e-7)
        assert math.fsum(found) == pytest.approx(1, abs=1e-12)
        in_order = [one["probability"] for one in row["top"]]
        assert in_order == sorted(in_order, reverse=True)
    right = sum(Path(row["file"]).stem[-1] == row["top"][0]["class"] for row in rows)
    assert right == (expected.argmax(1) == labels[:NUM_DIGITS]).sum()
    assert right > 0.8 * NUM_DIGITS


def test_rows_for_people(default_run: TrainedRun, digits: Path, dispatch: Dispatch) -> None:
    seven = digits / "007_7.png"
    as_json = dispatch("predict", str(default_run.best), str(seven), "--json", "--top-k", "2")
    top = rows_of(as_json)[0]["top"]
    done = dispatch("predict", str(default_run.best), str(seven), "--top-k", "2")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["file", "probability", "class"]
    assert first.split() == [str(seven), f"{top[0]['probability']:.4f}", top[0]["class"]]
    assert second.split() == [f"{top[1]['probability']:.4f}", top[1]["class"]]
    assert first.index("0.") == second.index("0.")
    assert len(dispatch("predict", str(default_run.best), str(seven)).stdout.splitlines()) == 6


def test_layers_by_hand_predict_the_same(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    words = ("predict", str(default_run.best), str(digits), "--json")
    by_layers = {n: rows_of(dispatch(*words, f"layers={n}")) for n in ("torch", "numpy")}
    for ours, theirs in zip(by_layers["numpy"], by_layers["torch"], strict=True):
        assert [one["class"] for one in ours["top"]] == [one["class"] for one in theirs["top"]]
        for one, other in zip(ours["top"], theirs["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
    assert len(by_layers["numpy"]) == NUM_DIGITS


def test_classes_that_are_not_the_weights_are_refused(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    entries = checkpoints.read(default_run.best)
    entries["classes"] = entries["classes"][:7]
    checkpoints.write(Path("seven.pth"), entries)
    done = dispatch("predict", "seven.pth", str(digits / "007_7.png"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "data.num_classes=10, and its network has 7" in done.stderr
    assert "Traceback" not in done.output


def test_a_net_that_computes_nonsense_says_so(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    entries = checkpoints.read(default_run.best)
    next(iter(entries["model"].values())).fill_(torch.nan)
    checkpoints.write(Path("nan.pth"), entries)
    done = dispatch("predict", "nan.pth", str(digits / "007_7.png"), "--json")
    assert done.returncode == 1
    assert "not finite" in rows_of(done)[0]["error"]


def test_weights_without_a_data_set(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    """import-weights knows no data set; its checkpoints predict all the same."""
    import yaml

    entries = checkpoints.read(default_run.best)
    config = yaml.safe_load(entries["config"])
    config["data"] = {"shape": [1, 28, 28], "num_classes": 10}
    entries["config"] = yaml.safe_dump(config)
    checkpoints.write(Path("imported.pth"), entries)
    image = str(digits / "007_7.png")
    done = dispatch("predict", "imported.pth", image)
    assert done.returncode == 0, done.output
    assert done.stdout == dispatch("predict", str(default_run.best), image).stdout


@pytest.fixture
def bare(default_run: TrainedRun) -> None:
    """bare.pth: the default run's weights and nothing else, in the current folder."""
    torch.save(checkpoints.read(default_run.best)["model"], "bare.pth")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "model=... data=..."),
        (["model=mlp"], "needs both"),
        (["data=mnist_5k", "data.shape=[1,28,28]"], "needs both"),
        (["model=mpl", "data=mnist_5k"], "Did you mean mlp"),
        (["model=mlp", "data=image_folder", "data.root=nowhere"], "nowhere"),
    ],
)
def test_weights_alone_need_a_description(
    digits: Path, dispatch: Dispatch, bare: None, words: list[str], expected: str
) -> None:
    done = dispatch("predict", "bare.pth", str(digits / "007_7.png"), *words)
    assert done.returncode == 2, done.output
    assert expected in done.stderr
    assert done.stdout == ""


def test_a_checkpoint_is_described_already(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch
) -> None:
    done = dispatch("predict", str(default_run.best), str(digits / "007_7.png"), "model=mlp")
    assert done.returncode == 2
    assert "model=mlp: the checkpoint has fixed it" in done.stderr


@pytest.mark.slow
def test_weights_alone_and_a_description_are_a_checkpoint(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch, bare: None
) -> None:
    seven = str(digits / "007_7.png")
    done = dispatch("predict", "bare.pth", seven, "model=mlp", "data=mnist_5k")
    assert done.returncode == 0, done.output
    assert done.stdout == dispatch("predict", str(default_run.best), seven).stdout

    by_number = dispatch(
        "predict", "bare.pth", seven, "model=mlp", "data=fashion_mnist", "data.root=nowhere",
        "data.mean=[0.1311]", "data.std=[0.3083]",
    )  # fmt: skip
    assert by_number.returncode == 0, by_number.output
    assert by_number.stdout == done.stdout
    assert "class indices are used as names" in by_number.stderr

    for words, expected in (
        (["model=lenet5", "data=mnist_5k"], "c1.weight"),
        (["model=mlp", "data=synthetic", "data.num_classes=7"], "number of classes"),
    ):
        refused = dispatch("predict", "bare.pth", seven, *words)
        assert refused.returncode == 2, refused.output
        assert expected in refused.stderr


WRONG = [
    (["BEST", "nowhere.png"], "nowhere.png"),
    (["BEST", "there.png", "nowhere"], "nowhere"),
    (["BEST", "empty"], "no images in this folder"),
    (["BEST", "there.png", "no*.png"], "no*.png: no image matches"),
    (["BEST", "empty*"], "no image matches"),
    (["BEST"], "IMAGE_OR_FOLDER"),
    (["no.pth", "there.png"], "no.pth"),
    (["there.png", "there.png"], "there.png"),
    (["BEST", "there.png", "--top-k", "0"], "--top-k 0"),
    (["BEST", "there.png", "--top-k", "-1"], "--top-k -1"),
    (["BEST", "there.png", "--top-k", "few"], "few"),
    (["BEST", "there.png", "--fit", "stretch"], "squash"),
    (["BEST", "there.png", "device=cuda:99"], "device=cuda:99"),
    (["BEST", "there.png", "precision=fp8"], "precision=fp8"),
    (["BEST", "there.png", "epochs=3"], "epochs"),
    (["BEST", "there.png", "nofile=3.png"], "nofile"),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_wrong_words(
    default_run: TrainedRun, digits: Path, dispatch: Dispatch, words: list[str], expected: str
) -> None:
    shutil.copy(digits / "007_7.png", "there.png")
    Path("empty").mkdir()
    Path("empty/.hidden.png").write_bytes(b"")
    done = dispatch("predict", *(str(default_run.best) if w == "BEST" else w for w in words))
    assert done.returncode == 2, done.output
    assert expected in done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""


@pytest.mark.slow
def test_what_a_start_does_not_need_stays_unimported(default_run: TrainedRun, digits: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", "predict", str(default_run.best),
         str(digits / "007_7.png")], cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"torch", "data.images.decode"} <= modules
    assert not {"torchvision", "torch._dynamo", "triton", "tensorboard"} & modules


@pytest.mark.slow
def test_held_out_digits_are_told_apart_as_well_as_evaluate_says(
    default_run: TrainedRun, tmp_path: Path
) -> None:
    """Every test digit as a PNG file, as it is and as ink on paper, from a folder of their own."""
    with np.load(ROOT / "data" / "mnist_5k.npz") as file:
        images, labels = file["test_images"], file["test_labels"]
    for kind, pixels in (("light", images), ("dark", 255 - images)):
        (tmp_path / kind).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / kind / f"{i:04}.png")
    best = str(default_run.best)
    evaluated = run_trainer("evaluate", best, "-o", "results", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.output
    measured = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    for words in (["light"], ["dark", "--invert"]):
        done = run_trainer("predict", best, *words, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.output
        said = [int(row["top"][0]["class"]) for row in rows_of(done)]
        confusion = np.zeros((10, 10), int)
        np.add.at(confusion, (labels, said), 1)
        assert confusion.tolist() == measured["confusion"]
        assert (said == labels).mean() == pytest.approx(measured["accuracy"], abs=1e-12)
        assert (said == labels).mean() == default_run.summary["test_accuracy"]


@pytest.mark.slow
def test_a_photograph_through_imported_weights_on_both_kinds_of_layers(tmp_path: Path) -> None:
    """VGG19 from a file of torchvision's kind, and a photograph that scikit-learn ships, against
    torchvision's net and transforms."""
    import torchvision
    from sklearn.datasets import load_sample_image
    from torchvision.transforms import v2

    torch.manual_seed(0)
    net = torchvision.models.vgg19(weights=None).eval()
    with torch.no_grad():
        net.classifier[-1].weight *= 100  # untrained, it is sure of nothing
    torch.save(net.state_dict(), tmp_path / "vgg19.pth")
    imported = run_trainer(
        "import-weights", "vgg19.pth", "--model", "vgg19", "-o", "ours.pth", cwd=tmp_path
    )
    assert imported.returncode == 0, imported.output
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    photograph.save(tmp_path / "china.png")
    seen = v2.Compose([
        v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])(photograph)  # fmt: skip
    with torch.no_grad():
        truth = net(seen[None])[0].double().softmax(0)
    expected = truth.argsort(descending=True)[:5].tolist()
    assert truth[expected[0]] > 0.1
    for layers in ("torch", "numpy"):
        done = run_trainer(
            "predict", "ours.pth", "china.png", "--json", f"layers={layers}", cwd=tmp_path
        )
        assert done.returncode == 0, done.output
        top = rows_of(done)[0]["top"]
        assert [one["index"] for one in top] == expected
        for one in top:
            assert one["probability"] == pytest.approx(truth[one["index"]].item(), rel=1e-3)
