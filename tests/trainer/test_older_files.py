"""Files of older versions: checkpoints and folders of runs still read, resume, and give the same.

`files_of_0_1_0.zip` holds what that version wrote before its modules moved: two trained runs, and
the images (random ones, made for this) of the first. The commands were

    python -m trainer model=mlp model.hidden=[4] data=image_folder data.root=photos
        data.shape=[1,8,8] data.val_size=0.25 data.test_size=0.25 augment=basic epochs=1
        batch_size=4 optimizer=sgd scheduler=cosine tensorboard=false
    python -m trainer model=mlp model.hidden=[4] data=synthetic data.shape=[1,8,8]
        data.num_train=48 data.num_test=12 data.num_classes=3 data.val_size=0.25 augment=basic
        epochs=1 batch_size=6 optimizer=adamw scheduler=cosine clip_grad_norm=1 precision=fp64
        tensorboard=false
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.helpers.commands import read_json, run_trainer

BEST = "photos_run/checkpoints/best.pth"
# What that version itself made of these files, one thread of a CPU with AVX2.
CAT = 0.9249908770599304
EVALUATED = {"accuracy": 1.0, "loss": 0.3547811210155487}
RESUMED = {"test_loss": 1.2131301176460352, "test_accuracy": 1 / 3, "steps": 12}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    with zipfile.ZipFile(Path(__file__).with_name("files_of_0_1_0.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_a_checkpoint_predicts_the_same(files: Path) -> None:
    done = run_trainer("predict", BEST, "photos/cat/00.png", "--json", cwd=files)
    assert done.returncode == 0, done.output
    top = json.loads(done.stdout)["top"][0]
    assert top["class"] == "cat"
    assert top["probability"] == pytest.approx(CAT, abs=1e-6)


def test_a_checkpoint_is_evaluated_on_its_own_data(files: Path) -> None:
    done = run_trainer("evaluate", BEST, "-o", "out", cwd=files)
    assert done.returncode == 0, done.output
    assert "no longer" not in done.output, "the images are those of the training"
    found = read_json(files / "out" / "evaluation.json")
    assert {key: found[key] for key in EVALUATED} == pytest.approx(EVALUATED, abs=1e-4)


def test_a_run_goes_on_to_the_same_losses(files: Path) -> None:
    done = run_trainer("resume", "synthetic_run", "epochs=2", cwd=files)
    assert done.returncode == 0, done.output
    assert "resuming from step 6" in done.output
    summary = read_json(files / "synthetic_run" / "summary.json")
    assert {key: summary[key] for key in RESUMED} == pytest.approx(RESUMED, rel=1e-9)


def test_a_run_on_images_of_ones_own_goes_on(files: Path) -> None:
    done = run_trainer("resume", "photos_run", "epochs=2", cwd=files)
    assert done.returncode == 0, done.output
    assert read_json(files / "photos_run" / "summary.json")["epochs"] == 2


def test_a_key_that_came_later_is_taken(files: Path) -> None:
    """Folds, which that version did not know: two of the 18 images that are not for testing."""
    done = run_trainer("evaluate", BEST, "data.folds=2", "data.fold=1", "-o", "out", cwd=files)
    assert done.returncode == 0, done.output
    assert "Warning: these are not the data, or not the split" in done.output
    found = read_json(files / "out" / "evaluation.json")
    assert (found["data"]["folds"], found["data"]["fold"]) == (2, 1)
    assert found["num_images"] == 9


@pytest.mark.parametrize(
    "words",
    [
        ("report", "."),
        ("export", BEST, "--format", "state_dict"),
        ("model=mlp", "model.hidden=[4]", "data.shape=[1,8,8]", f"weights={BEST}",
         "replace_head=true", "epochs=1", "limit_batches=1"),
    ],
)  # fmt: skip
def test_other_commands_take_them(words: tuple[str, ...], files: Path) -> None:
    done = run_trainer(*words, cwd=files)
    assert done.returncode == 0, done.output


def test_a_name_that_no_version_had_is_refused(files: Path) -> None:
    """The twin: dotted names are held against a list, not guessed."""
    from trainer import checkpoints

    entries = checkpoints.read(files / BEST)
    config = entries["config"].replace("data.image_folder.load_image_folder", "data.folders.load")
    assert config != entries["config"]
    checkpoints.write(files / BEST, {**entries, "config": config})
    done = run_trainer("predict", BEST, "photos/cat/00.png", cwd=files)
    assert done.returncode == 2
    assert "data.folders.load" in done.stderr
