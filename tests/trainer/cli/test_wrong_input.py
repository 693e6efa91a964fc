"""Wrong input: exit code 2, one short message that names what is wrong and what is right, no
traceback, nothing left behind. Each has a twin that is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from tests.helpers.commands import Finished, TrainedRun, run_trainer
from trainer.config.targets import constructor_errors
from trainer.errors import UserError

Dispatch = Callable[..., Finished]

WRONG = [
    # words, what the message must hold
    (["modle=vgg16"], ["'modle'", "Did you mean model?", "batch_size"]),
    (["model=lenet6"], ["'lenet6'", "Did you mean lenet5?", "mlp"]),
    (["optimizer.lrr=1"], ["'optimizer.lrr'", "optimizer.lr", "weight_decay"]),
    (["+optimizer.lrr=1"], ["'optimizer.lrr'", "optimizer.lr"]),
    (["optimizer=adamm"], ["'adamm'", "adam", "sgd"]),
    (["epochs=ten"], ["epochs=ten", "whole number"]),
    (["epochs=0"], ["epochs=0", "at least 1"]),
    (["epochs=1.5"], ["epochs=1.5", "whole number"]),
    (["epochs="], ["epochs"]),
    (["batch_size=0"], ["batch_size=0", "at least 1"]),
    (["seed=-1"], ["seed=-1", "at least 0"]),
    (["optimizer.lr=-1"], ["optimizer.lr=-1", "greater than 0"]),
    (["optimizer.lr=abc"], ["optimizer.lr=abc", "number"]),
    (["optimizer.lr=nan"], ["optimizer.lr=nan", "number"]),
    (["optimizer.betas=[0,1]"], ["optimizer.betas=[0,1]", "less than 1"]),
    (["optimizer._target_=torch.optim.NAdam", "+optimizer.momentum_decay=-1"],
     ["optimizer.momentum_decay=-1: refused by torch.optim.NAdam", "momentum_decay value"]),
    (["+optimizer.fused=true", "+optimizer.foreach=true"],
     ["optimizer.fused=true optimizer.foreach=true: refused by torch.optim.Adam"]),
    (["optimizer=sgd", "optimizer.momentum=0"], ["nesterov", "momentum"]),
    (["optimizer=sgd", "optimizer.momentum=1"], ["optimizer.momentum=1", "less than 1"]),
    (["device=gpu"], ["device=gpu", "auto", "cpu"]),
    (["device=cpu:3"], ["device=cpu:3", "cuda:N"]),
    (["device=cuda:7"], ["device=cuda:7", "cpu"]),
    (["precision=fp8"], ["precision=fp8", "fp32"]),
    (["channels_last=maybe"], ["channels_last=maybe", "auto"]),
    (["deterministic=3"], ["deterministic=3", "true or false"]),
    (["data.val_size=2"], ["data.val_size=2", "less than 1"]),
    (["data.folds=1"], ["data.folds=1", "2 or more, or 0"]),
    (["data.folds=5", "data.fold=5"], ["data.fold=5", "0 to 4 with data.folds=5"]),
    (["data.fold=2"], ["data.fold=2", "0 without data.folds"]),
    (["--multirun", "data.folds=3", "data.fold=0,1,2,3"], ["data.fold=3", "0 to 2"]),
    (["data.group=(p)"], ["'data.group'", "data.folds"]),
    (["data.shape=[1,28]"], ["data.shape=[1,28]", "list of 3"]),
    (["data.num_classes=5"], ["data.num_classes=5", "10"]),
    (["data=mnist", "data.root=/does/not/exist", "data.download=false"],
     ["data.root=/does/not/exist", "data.download", "train-images-idx3-ubyte", "data=mnist_5k"]),
    (["data=cifar10", "data.archive_md5=null"], ["data.archive_md5=null", "32 hex digits"]),
    (["data=cifar10", "data.file_md5=null"], ["data.file_md5=None", "MD5 for each file"]),
    (["data=cifar10", "data.file_md5.test_batch=5"], ["data.file_md5.test_batch=5", "in quotes"]),
    (["data=synthetic", "data.num_train=2000000000", "data.shape=[3,999,999]"],
     ["data.shape=[3, 999, 999]", "2,000,001,010 images", "GB are free", "fewer"]),
    (["data.shape=[3,100000,100000]"], ["data.shape=[3,100000,100000]", "from 1 to 16,384"]),
    (["batch_size=100000000000000000000"], ["batch_size=1000", "less than"]),
    (["num_threads=100000000000"], ["num_threads=1000", "at most 1024"]),
    (["model.activation=step"], ["model.activation=step", "relu"]),
    (["model.num_classes=3.5"], ["num_classes"]),
    (["loss.label_smoothing=1"], ["loss.label_smoothing=1", "less than 1"]),
    (["loss=mse", "loss.on=pixels"], ["loss.on=pixels", "probabilities"]),
    (["scheduler=multistep", "scheduler.milestones=[3,2]"], ["scheduler.milestones", "increase"]),
    (["+scheduler.foo=1"], ["'scheduler.foo'", "warmup_steps"]),
    (["+typo=1"], ["'typo'", "epochs"]),
    (["model=null"], ["model=null"]),
    (["model=mlp,lenet5"], ["--multirun"]),
    (["experiment=nothing"], ["'nothing'", "experiment"]),
    (["optimizer.lr=${nope}"], ["nope"]),
    (["model.activation=ées"], ["model.activation=ées", "quotes"]),
    (["hydra.run.dirr=x"], ["hydra.run.dirr", "hydra.run.dir"]),
    (["--config-dir", "nowhere"], ["nowhere"]),
    (["--multirun", "model=mlp,lenet6"], ["'lenet6'"]),
    (["--multirun", "optimizer.lr=0.1,-1", "seed=0,1"], ["optimizer.lr=-1"]),
    (["--multirun", "optimizer=sgd", "optimizer.nesterov=true,false", "optimizer.momentum=0,0.9"],
     ["nesterov", "momentum"]),
    (["--multirun", "--cfg", "job"], ["--multirun"]),
    (["--resolve"], ["--cfg"]),
    (["replace_head=true"], ["replace_head", "weights"]),
    (["batch_size=1", "model=googlenet", "model.batch_norm=true", "data.shape=[3,32,32]"],
     ["batch_size=1", "batch norm"]),
    (["~model"], ["model"]),
    (["~epochs"], ["epochs"]),
    (["~data.mean"], ["data.mean", "missing"]),
    (["optimizer=null"], ["optimizer=null", "adam"]),
    (["epochs"], ["epochs=..."]),
    (["best.pth"], ["best.pth", "key=value"]),
    (["+experiment=mlp_fashion"], ["experiment"]),
    (["hydra.job.chdir=true"], ["hydra.job.chdir"]),
    (["report", "nofolder", "more"], ["more"]),
    (["evalute", "x.pth"], ["'evalute'", "Did you mean evaluate?", "report"]),
    (["evaluate", "nofile.pth"], ["nofile.pth", "best.pth"]),
    (["evaluate"], ["checkpoint"]),
    (["evaluate", "x.pth", "split=all"], ["x.pth", "no such file"]),
    (["evaluate", "x.pth", "optimizer.lr=1"], ["optimizer.lr", "device"]),
    (["report", "nofolder"], ["nofolder"]),
    (["weights=."], [".: this is a folder", "checkpoints/best.pth"]),
    (["hydra.run.dir=/dev/null/x"], ["/dev/null/x"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_input(
    dispatch: Dispatch, tmp_path: Path, words: list[str], expected: list[str]
) -> None:
    done = dispatch(*words)
    assert done.returncode == 2, done.output
    for part in expected:
        assert part in done.stderr
    assert "Traceback" not in done.output
    assert len(done.output.splitlines()) < 30
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


RIGHT = [
    ["model=lenet5"],
    ["epochs=1", "batch_size=1", "seed=9223372036854775807"],
    ["optimizer.lr=1e-5"],
    ["optimizer.lr=1"],
    ["optimizer.betas=[0,0]"],
    ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false"],
    ["optimizer.amsgrad=true"],
    ["device=cpu", "precision=fp64", "channels_last=false"],
    ["data.val_size=0.5"],
    ["data.folds=5", "data.fold=4"],
    ["data.shape=[3,32,32]", "model=cifar_net"],
    ["model.activation=tanh"],
    ["loss=mse", "loss.on=logits", "loss.label_smoothing=0.5"],
    ["scheduler=multistep", "scheduler.milestones=[2,3]"],
    ["scheduler=step", "scheduler.warmup_steps=50"],
]


@pytest.mark.parametrize("words", RIGHT, ids=[" ".join(words) for words in RIGHT])
def test_right_input_passes_the_same_checks(tmp_path: Path, words: list[str]) -> None:
    from trainer.builders import training_run
    from trainer.config import compose, knobs

    composer = compose.Composer(compose.parse(words))
    job = compose.plain(composer.jobs(composer.master())[0])
    knobs.check(job)
    training_run.check(job)


@pytest.mark.parametrize(
    "words",
    [
        ["model.dropout=2"],
        ["weights=nope.pth"],
        ["freeze=[nope]"],
        ["scheduler=multistep", "scheduler.milestones=[5,3]"],
        ["+optimizer.foo=1"],
        ["--multirun", "optimizer.lr=0.1,-1"],
        ["--multirun", "model.activation=relu,step"],
        [],  # the twin: right values go on
    ],
    ids=" ".join,
)
def test_wrong_values_are_found_before_any_download(
    dispatch: Dispatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    import data.mnist

    def fetch(*_: object) -> None:
        raise AssertionError("the download was begun")

    monkeypatch.setattr(data.mnist, "fetch_idx", fetch)
    words = ["data=mnist", f"data.root={tmp_path}/raw", *words]
    if words[2:]:
        done = dispatch(*words)
        assert done.returncode == 2, done.output
        return
    with pytest.raises(InstantiationException, match="begun"):
        dispatch(*words)


def test_flags_may_stand_between_keys(dispatch: Dispatch, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "e.yaml").write_text("epochs: 3\n")
    done = dispatch("epochs=1", "--config-dir", "mine", "experiment=e")
    assert done.returncode == 2
    assert "# @package _global_" in done.stderr  # found, and its missing first line named


def test_a_folder_that_holds_a_run_is_refused(dispatch: Dispatch, tmp_path: Path) -> None:
    kept = tmp_path / "used" / "checkpoints" / "step_1.pth"
    kept.parent.mkdir(parents=True)
    kept.write_text("a state, damaged or not")
    done = dispatch("hydra.run.dir=used")
    assert done.returncode == 2
    assert "resume" in done.stderr
    assert kept.read_text() == "a state, damaged or not"
    assert [path.name for path in (tmp_path / "used").rglob("*")] == ["checkpoints", "step_1.pth"]


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    """Root may write anywhere, so the check runs on a path that nobody can make."""
    done = run_trainer("hydra.run.dir=/proc/nobody/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "/proc/nobody/run" in done.stderr
    assert "Traceback" not in done.output


def test_a_broken_yaml_file_is_named(dispatch: Dispatch, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "broken.yaml").write_text("# @package _global_\na: [1\n")
    done = dispatch("--config-dir", "mine", "experiment=broken")
    assert done.returncode == 2
    assert "broken.yaml" in done.stderr
    assert "Traceback" not in done.output


def test_a_typo_in_an_experiment_file_is_named(dispatch: Dispatch, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "e.yaml").write_text("# @package _global_\nepoch: 3\n")
    done = dispatch("--config-dir", "mine", "experiment=e")
    assert done.returncode == 2
    assert "'epoch'" in done.stderr
    assert "Did you mean epochs?" in done.stderr


@pytest.mark.parametrize("size", [2 * 10**11, 10**18, 10**20], ids=lambda n: f"{n:.0e}")
def test_a_net_that_memory_cannot_hold_is_one_message(
    dispatch: Dispatch, tmp_path: Path, size: int
) -> None:
    done = dispatch(f"model.hidden=[{size}]")
    assert done.returncode == 2, done.output
    assert done.stderr.startswith("model: ")
    assert "memory" in done.stderr
    assert len(done.stderr.splitlines()) < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", ["model", "data"])
def test_what_a_limit_of_memory_refuses_is_one_message(group: str) -> None:
    """Under `ulimit -v`, of which nobody can tell ahead. Other faults stay what they are."""
    for cause in (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB"), MemoryError(),
    ):  # fmt: skip
        with (
            pytest.raises(UserError, match=f"^{group}: takes more memory"),
            constructor_errors(group, {}),
        ):
            raise InstantiationException("Error in call") from cause
    with pytest.raises(InstantiationException), constructor_errors(group, {}):
        raise InstantiationException("Error in call") from RuntimeError("shapes do not match")


def test_a_wrong_split(dispatch: Dispatch, default_run: TrainedRun) -> None:
    done = dispatch("evaluate", str(default_run.best), "split=all")
    assert (done.returncode, done.stdout) == (2, "")
    assert "split=all: must be one of test, val, train" in done.stderr
