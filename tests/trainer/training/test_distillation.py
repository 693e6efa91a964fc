"""Distillation: its loss against the paper's formula, a teacher through the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.loading.preprocess import Preprocess
from tests.helpers import norm_net, results
from tests.helpers.commands import run_trainer, train
from tests.helpers.visualizer_runs import compose_words
from trainer.builders import idle_keys, training_run
from trainer.builders.lr_sweep import swept_losses
from trainer.config import knobs
from trainer.errors import UserError
from trainer.losses import CrossEntropy, Distilled
from trainer.training.distillation import Taught, Teacher

WORDS = [*norm_net.TINY, "model.hidden=[12]", "augment.mixup=0.5"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolutional network, which sees larger images, trained on the same data."""
    folder = tmp_path_factory.mktemp("teacher")
    words = [*norm_net.TINY, "model=cifar_net", "seed=3", "epochs=1"]
    return train(folder, *words).folder / "checkpoints" / "best.pth"


@pytest.fixture(scope="module")
def small_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [*norm_net.TINY, "model.hidden=[40]", "seed=3"]
    return train(tmp_path_factory.mktemp("small"), *words).folder / "checkpoints" / "best.pth"


def by_hand(student: Tensor, teacher: Tensor, labels: Tensor, t: float, weight: float) -> Tensor:
    """Sums over classes written out, of exponentials themselves."""
    p, q = (torch.exp(z / t) / torch.exp(z / t).sum(1, keepdim=True) for z in (teacher, student))
    soft = (p * (p.log() - q.log())).sum(1).mean()
    return weight * t * t * soft + (1 - weight) * F.cross_entropy(student, labels)


@pytest.mark.parametrize(("t", "weight"), [(4.0, 0.9), (1.0, 1.0), (2.0, 0.0), (0.5, 0.3)])
def test_loss_is_the_formula(t: float, weight: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 7, 5, dtype=torch.float64) * 3
    labels = torch.randint(5, (7,))
    student.requires_grad_()
    loss = Distilled(CrossEntropy(), t, weight)((student, teacher), labels)
    expected = by_hand(student, teacher, labels, t, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x, student, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_a_teacher_that_says_the_same_adds_nothing() -> None:
    logits = torch.randn(6, 3, dtype=torch.float64)
    loss = Distilled(CrossEntropy(), 4.0, 0.9)((logits, logits), torch.zeros(6, dtype=torch.int64))
    expected = 0.1 * F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(loss, expected)


def test_auxiliary_heads_count_in_the_labels_part_alone() -> None:
    main, first, second, taught = torch.randn(4, 6, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    loss = Distilled(CrossEntropy(), 3.0, 0.6)((main, first, second, taught), labels)
    without = by_hand(main, taught, labels, 3.0, 0.6)
    extra = 0.3 * (F.cross_entropy(first, labels) + F.cross_entropy(second, labels))
    torch.testing.assert_close(loss, without + 0.4 * extra)


def test_bfloat16_logits_are_compared_in_float32() -> None:
    student, taught = torch.randn(2, 8, 4).to(torch.bfloat16)
    loss = Distilled(CrossEntropy(), 4.0, 1.0)((student, taught), torch.zeros(8, dtype=torch.int64))
    assert loss.dtype == torch.float32
    expected = by_hand(student.float(), taught.float(), torch.zeros(8, dtype=torch.int64), 4.0, 1.0)
    torch.testing.assert_close(loss, expected)


def test_the_teacher_sees_images_with_its_own_normalisation_and_size_in_eval_mode() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    network = network.double().train()
    pixels = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    prepare, own = (
        Preprocess(mean, std, size, torch.device("cpu"), torch.float64)
        for mean, std, size in (((0.5,), (0.25,), 1), ((0.1,), (0.7,), 32))
    )
    teacher = Teacher(network, own, [0.5], [0.25])
    expected = network.eval()(own(pixels))
    assert expected.shape == (2, 4 * 30 * 30)
    torch.testing.assert_close(teacher(prepare(pixels)), expected, rtol=1e-10, atol=1e-10)
    assert not teacher(prepare(pixels)).requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    same = Teacher(network, None, [0.1], [0.7])
    assert torch.equal(same(own(pixels)), expected)
    outputs = Taught(lambda images: (images, images), same)(own(pixels))
    assert [tuple(output.shape) for output in outputs] == [(2, 1, 32, 32)] * 2 + [(2, 3600)]


def test_a_network_learns_from_its_teacher_alone(tmp_path: Path, small_teacher: Path) -> None:
    """With weight 1 labels play no part: the student comes to say what the teacher says."""
    words = [*norm_net.TINY, "model.hidden=[40]", "epochs=60", "eval_every_epochs=60",
             "optimizer.lr=0.01", f"teacher={small_teacher}", "distill_weight=1"]  # fmt: skip
    run = train(tmp_path, *words)
    losses = [row["loss"] for row in run.rows if row["split"] == "train"]
    assert losses[-1] < 0.05 * losses[0]
    assert "teacher: " in (run.folder / "trainer.log").read_text()


def test_resumed_to_the_same_bits_with_its_teacher_wherever_it_lies(
    tmp_path: Path, teacher: Path, small_teacher: Path
) -> None:
    shutil.copy(teacher, tmp_path / "mine.pth")
    words = [*WORDS, "teacher=mine.pth"]
    whole = train(tmp_path, *words, folder="whole")
    train(tmp_path, *words, "stop_epoch=1", folder="run")
    (tmp_path / "mine.pth").rename(tmp_path / "moved.pth")
    gone = run_trainer("resume", "run", cwd=tmp_path)
    assert gone.returncode == 2
    assert "teacher=mine.pth: " in gone.output
    another = run_trainer("resume", "run", f"teacher={small_teacher}", cwd=tmp_path)
    assert another.returncode == 2
    assert "began with one of" in another.output
    none = run_trainer("resume", "run", "teacher=null", cwd=tmp_path)
    assert none.returncode == 2
    assert "teacher: mine.pth -> null" in none.output
    done = run_trainer("resume", "run", "teacher=moved.pth", cwd=tmp_path)
    assert done.returncode == 0, done.output
    results.assert_same(tmp_path / "run", whole.folder)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["precision=bf16", "precision=fp16", "micro_batch_size=5"])
def test_with_other_ways_of_computing(tmp_path: Path, teacher: Path, word: str) -> None:
    words = [*norm_net.TINY, "model.hidden=[12]", f"teacher={teacher}"]
    plain, other = (train(tmp_path, *words, *more, folder=f"r{len(more)}").rows
                    for more in ([], [word]))  # fmt: skip
    assert [row["loss"] for row in other] == pytest.approx([r["loss"] for r in plain], rel=0.02)


def test_a_distilled_checkpoint_is_used_without_its_teacher(
    tmp_path: Path, small_teacher: Path
) -> None:
    shutil.copy(small_teacher, tmp_path / "t.pth")
    run = train(tmp_path, *norm_net.TINY, "model.hidden=[12]", "teacher=t.pth").folder
    (tmp_path / "t.pth").unlink()
    best = str(run / "checkpoints" / "best.pth")
    for words in ([], ["layers=numpy"]):
        done = run_trainer("evaluate", best, *words, "-o", "found", cwd=tmp_path)
        assert done.returncode == 0, done.output
        found = json.loads((tmp_path / "found" / "evaluation.json").read_text())
        assert found["accuracy"] == results.summary(run)["test_accuracy"]


def test_find_lr_sweeps_the_distilled_loss(small_teacher: Path) -> None:
    lrs = [1e-6] * 3
    losses = [
        swept_losses(compose_words(*norm_net.TINY, "model.hidden=[12]", *words), lrs)
        for words in ([], [f"teacher={small_teacher}", "distill_weight=0"],
                      [f"teacher={small_teacher}", "distill_weight=1"])
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert min(abs(a - b) for a, b in zip(losses[0], losses[2], strict=True)) > 0.01


def write_teacher(source: Path, target: Path, **changed: Any) -> str:
    from trainer import checkpoints
    from trainer.checkpoints import entries

    checkpoints.write(target, {**entries.read(source), **changed})
    return str(target)


def check(*words: str) -> None:
    config = compose_words(*norm_net.TINY, *words)
    knobs.check(config)
    training_run.check(config)
    training_run.check_data(config)
    idle_keys.refuse_in_training(idle_keys.keys_in(words), [config])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"classes": ["a", "b", "c", "d"]}, "knows classes [a,b,c,d]"),
    ({"probabilities": "sigmoid"}, "become probabilities by sigmoid"),
    ({"mean": [0.0], "std": [1.0], "shape": [1, 8, 8]}, "its network has [1,8,8]"),
    ({"pixel_range": [0.0, 9.0]}, "knows pixels in the range [0.0,9.0], and the training has null"),
]


@pytest.mark.parametrize(("changed", "told"), REFUSED)
def test_a_teacher_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, small_teacher: Path, changed: dict[str, Any], told: str
) -> None:
    path = write_teacher(small_teacher, tmp_path / "t.pth", **changed)
    with pytest.raises(UserError) as error:
        check(f"teacher={path}")
    assert str(error.value).startswith(f"teacher={path}: ")
    assert told in str(error.value)
    check(f"teacher={write_teacher(small_teacher, tmp_path / 'fine.pth', mean=[0.1, 0.2, 0.3])}")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["layers=numpy"], "teacher="), (["compile=step"], "with compile=step: not supported"),
     (["loss=bce"], "with this loss: not supported"),
     (["data.shape=[3,9,9]"], "knows images of shape [3,8,8]"),
     (["data.num_classes=5"], "knows classes"),
     (["model=vgg11"], "brought to 8x8, and the model that is trained to 32x32"),
     (["teacher=nothing.pth"], "nothing.pth"), (["teacher=."], "this is a folder"),
     (["distill_temperature=0"], "distill_temperature=0"),
     (["distill_weight=1.5"], "distill_weight=1.5"),
     (["teacher=null", "distill_weight=0.5"], "has no effect without a teacher"),
     (["teacher=null", "distill_temperature=2"], "has no effect without a teacher")],
)  # fmt: skip
def test_refused_with_one_message(small_teacher: Path, words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        check(f"teacher={small_teacher}", *words)


@pytest.mark.parametrize("words", [[], ["loss=focal", "distill_weight=0"], ["compile=model"]])
def test_taken(small_teacher: Path, words: list[str]) -> None:
    check(f"teacher={small_teacher}", *words)


def test_a_teacher_of_ones_own_module_needs_trust(tmp_path: Path) -> None:
    own = norm_net.write(tmp_path)
    best = train(tmp_path, *own, folder="teacher").folder / "checkpoints" / "best.pth"
    refused = run_trainer(*WORDS, f"teacher={best}", "hydra.run.dir=run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "trust=" in refused.output
    words = [*WORDS, f"teacher={best}", "trust=[norm_net]", "hydra.run.dir=run"]
    assert (done := run_trainer(*words, cwd=tmp_path)).returncode == 0, done.output
