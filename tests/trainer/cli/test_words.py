"""What people type: paths reach the program as they are, and a word that is not known ends with one
message that holds the right one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Finished, TrainedRun
from trainer.builders.restore import typed
from trainer.cli.arguments import LONGEST_OUTPUT
from trainer.config import knobs
from trainer.config.compose import Composer, parse, plain
from trainer.config.suggestions import OTHER_COMMANDS, SYNONYMS, meant
from trainer.sweeps.search import grid

Dispatch = Callable[..., Finished]

PATHS = [
    "2024_01_15", "2024-01-15", "1e3", "007", "1_000", "0x1f", "on", "off", "yes", "true", "NULL",
    "Null", "none", "nan", "inf", ".5", "~/photos", "my photos", " x", "a,b", "a(1)", "[x]", "{y}",
    "it's", '"', "back\\slash", "end\\", "\\'", "lr=0.1", "a:b", "é", "犬", "#1", "$HOME", "%s",
    "x\udc80y", "-x", "+x", "@x", "*", "a|b", "'", "'a", "!x", "&x",
]  # fmt: skip


def composed(*words: str) -> dict[str, object]:
    composer = Composer(parse(list(words)))
    return plain(composer.jobs(composer.master())[0])


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_what_was_typed(path: str) -> None:
    config = composed(
        "data=image_folder", f"data.root={path}", f"++data.cache_dir={path}", f"weights={path}"
    )
    assert (config["data"]["root"], config["data"]["cache_dir"], config["weights"]) == (path,) * 3
    assert typed("data.root", path) == path


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_the_folder_of_a_run_is_what_was_typed(path: str) -> None:
    composer = Composer(parse([f"hydra.run.dir={path}"]))
    assert composer.master().hydra.run.dir == path
    config = composed("model=torchvision", f"model.name={path}")
    assert config["model"]["name"] == path


def test_null_and_quotes_are_still_hydras() -> None:
    assert composed("weights=null")["weights"] is None
    assert composed("weights='null'")["weights"] == "null"
    assert composed('weights="a b"')["weights"] == "a b"
    os.environ["MINE"] = "there"
    assert composed("weights=${oc.env:MINE}/x")["weights"] == "there/x"
    assert composed("seed=1_000")["seed"] == 1000  # a number is one


def test_paths_in_a_sweep_are_what_was_typed() -> None:
    args = parse(["--multirun", "data=image_folder", "data.root=2024_01_15, 007", "seed=1,2"])
    composer = Composer(args)
    jobs = [plain(job) for job in composer.jobs(composer.master())]
    assert [(job["data"]["root"], job["seed"]) for job in jobs] == [
        ("2024_01_15", 1), ("2024_01_15", 2), ("007", 1), ("007", 2),
    ]  # fmt: skip


EXPRESSIONS = [
    r"(p\d+)_", r"p(\d{1,3})-", "([^/]+)/[^/]+$", "(?:a|b)(.),(.)", "('x')", r"(\.)csv", "$(a)",
    "(a", "my groups.csv",
]  # fmt: skip


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_what_was_typed_in_a_sweep_too(expression: str) -> None:
    words = ("data=image_folder", f"data.group={expression}")
    assert composed(*words)["data"]["group"] == expression
    args = parse(["--multirun", *words, "seed=1,2"])
    composer = Composer(args)
    jobs = [plain(job) for job in composer.jobs(composer.master())]
    assert [(job["data"]["group"], job["seed"]) for job in jobs] == [
        (expression, 1), (expression, 2)
    ]  # fmt: skip


def test_expressions_in_quotes_are_swept() -> None:
    args = parse(["--multirun", "data=image_folder", "data.group='(a)','(b)'"])
    composer = Composer(args)
    jobs = [plain(job)["data"]["group"] for job in composer.jobs(composer.master())]
    assert jobs == ["(a)", "(b)"]


def test_a_sweep_is_listed_job_by_job() -> None:
    composer = Composer(
        parse(["--multirun", "seed=1,2", "model=mlp", "jobs=3", "hydra.job.name=x"])
    )
    assert grid(composer.space(composer.master())) == [
        ["seed=1", "model=mlp"], ["seed=2", "model=mlp"]
    ]  # fmt: skip


def test_the_command_line_goes_before_the_values_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {sweeper: {params: {seed: '0,1', epochs: '2,3'}}}\n"
    )
    words = ["--multirun", "--config-dir", str(tmp_path), "+experiment=mine", "seed=7,8"]
    words[3] = "experiment=mine"
    composer = Composer(parse(words))
    jobs = grid(composer.space(composer.master()))
    assert [sorted(job)[0] + sorted(job)[2] for job in jobs] == [
        "epochs=2seed=7", "epochs=2seed=8", "epochs=3seed=7", "epochs=3seed=8"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["lr=0.1"], "optimizer.lr="),
        (["--epochs", "3"], "epochs=3"),
        (["--lr=0.1"], "optimizer.lr=0.1"),
        (["--batch-size", "32", "model=lenet5"], "batch_size=32"),
        (["batch-size=32"], "batch_size="),
        (["bs=32"], "batch_size="),
        (["gpu=0"], "device=cuda:0"),
        (["num_epochs=3"], "epochs="),
        (["dataset=cifar10"], "data="),
        (["val_size=0.2"], "data.val_size="),
        (["model=densenet121"], "model=torchvision model.name=densenet121"),
        (["data=photos"], "data=image_folder data.root=photos"),
        (["train", "model=lenet5"], "python -m trainer model=lenet5"),
        (["eval", "best.pth"], "python -m trainer evaluate best.pth"),
        (["sweep", "seed=1,2"], "python -m trainer --multirun seed=1,2"),
        (["summary", "--epochs", "3"], "epochs=3"),
        (["resume", "--epochs", "30"], "epochs=30"),
        (["predict", "best.onnx", "x.png"], "give best.pth"),
        (["predict", "photos", "x.png"], "photos: is a folder"),
        (["evaluate", "x.pth", "-o", "results/lr=0.1"], "x.pth: there is no such file"),
    ],
)  # fmt: skip
def test_the_nearest_right_thing(dispatch: Dispatch, words: list[str], right: str) -> None:
    Path("photos").mkdir()
    for name in ("best.onnx", "best.pth"):
        Path(name).touch()
    done = dispatch(*words)
    assert done.returncode == 2
    assert right in done.stderr
    assert done.stdout == ""
    assert sorted(os.listdir()) == ["best.onnx", "best.pth", "photos"]


def test_words_of_others_mean_keys_that_exist() -> None:
    keys = {*knobs.KNOBS, *knobs.GROUPS, "experiment", *knobs.OTHER_TEXTS}
    assert set(SYNONYMS.values()) <= keys
    assert not set(SYNONYMS) & keys
    from trainer.cli.dispatch import COMMANDS

    assert set(OTHER_COMMANDS.values()) <= set(COMMANDS)
    assert meant("nonsense", keys) is None
    assert meant("seed", {"seed", "data.seed"}) == "seed"
    assert meant("gamma", {"scheduler.gamma", "other.gamma"}) is None


def test_version(dispatch: Dispatch) -> None:
    done = dispatch("--version")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, [line[0] for line in lines]) == (0, ["trainer", "torch", "hydra-core"])
    import torch

    assert torch.__version__.startswith(lines[1][1])


def test_one_process_of_torchrun_is_one_training(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert "epochs=0" in dispatch("epochs=0").stderr


def test_a_runs_folder_means_its_best_weights(default_run: TrainedRun, dispatch: Dispatch) -> None:
    out = Path("results/lr=0.1")
    done = dispatch("evaluate", str(default_run.folder), "limit_batches=1", "-o", str(out))
    assert done.returncode == 0, done.output
    assert (out / "evaluation.json").is_file()


HUGE, BYTES = "x" * 5000, "a\udc80\udcff"
VALUES = ["", HUGE, BYTES, "-1", "[", "\x1b[2J", "a" * 250]
COMMAND_LINES = [
    *([key, value] for key in (
        "epochs", "seed", "device", "weights", "freeze", "trust", "model", "data", "optimizer",
        "experiment", "model._target_", "optimizer.lr", "data.shape", "nonsense", "hydra.run",
    ) for value in VALUES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, value in COMMAND_LINES if (key, value) != ("experiment", "")],
)
def test_a_key_of_any_value_is_one_message(dispatch: Dispatch, key: str, value: str) -> None:
    done = dispatch(f"{key}={value}")
    assert done.returncode == 2, done.output
    assert 0 < len(done.stderr) < 6000
    assert "\x1b" not in done.stderr
    assert os.listdir() == []


@pytest.mark.parametrize(
    "words",
    [
        ["--run", "--multirun"], ["--cfg", "job", "--info", "all"], ["--cfg", "job", "--cfg", "x"],
        ["--cfg"], ["--info", ""], ["--config-dir", ""], ["--config-dir", HUGE],
        ["--config-name", HUGE], ["--config-name", BYTES], ["--config-path", HUGE], ["--package"],
        ["--resolve"], ["--experimental-rerun", "x"], ["--nonsense"], [f"--{HUGE}"], [BYTES],
        [HUGE], [f"{HUGE}=1"], [f"{BYTES}=1"], ["=3"], ["="], ["~"], ["~model"], ["+"], [""],
        ["model=[1]"], ["model={a:1}"], ["model._target_=null"], ["model._target_=[1]"],
        ["hydra=5"], ["hydra.run=5"], ["hydra.run.dir="], ["hydra.run.dir=null"],
        ["--multirun", "hydra.sweeper=5"], ["--multirun", 'hydra.sweeper.params={seed:"0,1"}'],
        ["--multirun", "seed=range(0,1000000000000)"], ["--multirun", "seed="], ["epochs=1,2"],
        ["optimizer=rmsprop", "optimizer.weight_decay=1e39"], ["optimizer.lr=1e400"],
        ["optimizer.lr=" + "9" * 400], ["seed=" + "9" * 5000], ["epochs=1", "epochs=0"],
    ],
)  # fmt: skip
def test_words_of_a_training_are_one_message(dispatch: Dispatch, words: list[str]) -> None:
    done = dispatch(*words)
    assert done.returncode == 2, done.output
    assert 0 < len(done.stderr) < 6000, done.stderr
    assert os.listdir() == []


@pytest.mark.parametrize("name", ["model.hidden", "scheduler.milestones", "freeze"])
def test_a_word_without_end_is_refused_at_once(dispatch: Dispatch, name: str) -> None:
    done = dispatch(f"{name}=[{','.join('2' for _ in range(4096))}]")
    assert done.returncode == 2
    assert f"{name}=[2,2" in done.stderr
    assert "a word may have 4,096" in done.stderr


OPTIONS = {
    "evaluate": ["-o", "--flip"],
    "predict": ["--top-k", "--fit", "-o", "--json", "--invert", "--max-pixels"],
    "export": ["--format", "-o", "--force"],
    "import-weights": ["--model", "-o", "--classes", "--force"],
    "resume": ["--force", "--retry-failed"], "summary": [],
    "report": ["--json", "--csv", "--paths", "--sort", "--status", "--suspects"],
    "compare": ["--json"],
}  # fmt: skip


def test_the_table_of_options_is_whole(dispatch: Dispatch) -> None:
    for command, options in OPTIONS.items():
        told = set(re.findall(r"^  (-[\w-]+)", dispatch(command, "--help").stdout, re.MULTILINE))
        assert told - {"-h"} == set(options), command


def test_the_usage_says_whether_keys_are_taken(dispatch: Dispatch) -> None:
    for command in OPTIONS:
        usage = dispatch(command, "--help").stdout.partition("\n\n")[0]
        assert ("[key=value ...]" in usage) == (command != "report"), command


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (command, [*before, option, *value])
        for command, options in OPTIONS.items()
        for option in [*options, "--nonsense", ""]
        for before in ([], ["no.pth"], ["no.pth", "no.png"])
        for value in ([], [""], [HUGE], [BYTES], ["-1"], ["x=1"])
    ],
)
def test_options_of_commands_are_one_message(
    dispatch: Dispatch, command: str, words: list[str]
) -> None:
    done = dispatch(command, *words)
    assert done.returncode == 2, done.output
    assert 0 < len(done.stderr) < 6000, done.stderr
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["evaluate", "export", "import-weights"])
def test_an_output_of_a_long_name_is_refused_before_the_work(
    dispatch: Dispatch, default_run: TrainedRun, command: str
) -> None:
    more = {
        "evaluate": [], "export": ["--format=state_dict"],
        "import-weights": ["--model=mlp", "data.num_classes=10", "data.shape=[1,28,28]"],
    }[command]  # fmt: skip
    name = "y" * (LONGEST_OUTPUT - 3) + ".pth"
    done = dispatch(command, str(default_run.best), *more, "-o", name)
    assert done.returncode == 2
    assert "longer than" in done.stderr
    assert os.listdir() == []
    done = dispatch(command, str(default_run.best), *more, "-o", name[1:])
    assert done.returncode == 0, done.output


def test_import_weights_needs_a_number_of_classes(
    dispatch: Dispatch, default_run: TrainedRun
) -> None:
    done = dispatch(
        "import-weights", str(default_run.best), "--model=mlp", "-o", "o.pth",
        "data.num_classes=null",
    )  # fmt: skip
    assert done.returncode == 2
    assert "data.num_classes=null" in done.stderr
