"""Cut off anywhere, a training ends in the bits of one that nothing happened to."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.campaigns import kills
from tests.helpers import processes, results
from tests.helpers.tiny_training import TINY, refused, signal_at, train, whole_run
from trainer import checkpoints


@pytest.fixture
def whole() -> Path:
    return whole_run()


def sha256(run: Path) -> str:
    return str(results.summary(run)["weights_sha256"])


@pytest.mark.slow
def test_four_kills_and_the_controls(tmp_path: Path) -> None:
    """The whole campaign is `python -m tests.campaigns.kills`."""
    words = (*kills.COMMON, *kills.WORDS["mlp"], "epochs=10")
    report = kills.campaign(tmp_path, words, kills=4, seed=1)
    assert (report.kills, report.steps) == (4, 120)
    differ = kills.controls(tmp_path, words)
    assert differ == {"untouched": False, "seed": True, "memory": True}


@pytest.mark.slow
@pytest.mark.parametrize("row", ["ema", "swa", "unfrozen", "taught"])
def test_kills_of_a_training_with_more_than_steps(tmp_path: Path, row: str) -> None:
    words = (*kills.words_of(row, tmp_path), "epochs=8")
    assert kills.campaign(tmp_path, words, kills=3, seed=2).kills == 3


# --- nothing that only watches, saves or hurries changes the result -------------------------------

HARMLESS = [
    ("save_every_steps=1",),
    ("save_every_steps=3", "save_every_minutes=0.0001"),
    ("log_interval=1",),
    ("eval_every_epochs=2",),
    ("tensorboard=true", "histograms=true"),
    ("num_workers=1",),
    ("num_workers=2", "log_interval=2", "save_every_steps=7"),
]


@pytest.mark.parametrize(
    "words", [HARMLESS[0], *(pytest.param(w, marks=pytest.mark.slow) for w in HARMLESS[1:])],
    ids=" ".join,
)  # fmt: skip
def test_the_result_does_not_depend_on(whole: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    run = train(tmp_path, *words)
    assert sha256(run) == sha256(whole)
    if "eval_every_epochs=2" in words:  # another epoch is then the best that was seen
        assert results.summary(run)["best_epoch"] == 2
        return
    assert results.rows(run) == results.rows(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("seed=1",), ("batch_size=9",), ("augment=none",), ("model.dropout=0",)], ids=" ".join
)
def test_the_result_does_depend_on(whole: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The control: each of these would show if it were lost on the way."""
    assert sha256(train(tmp_path, *words)) != sha256(whole)


# --- signals --------------------------------------------------------------------------------------

TRAINING, EVALUATING = False, True
MOMENTS = {
    "in an epoch": (TRAINING, 1, 2),
    "at the last step of an epoch": (TRAINING, 3, 4),
    "in the validation": (EVALUATING, 0, 4),
    "at the last step of all": (TRAINING, 7, 8),
    "in the last validation": (EVALUATING, 1, 8),
    "in the test": (EVALUATING, 2, 8),
}


def stopped(folder: Path, number: int, moment: str, *argv: str) -> Path:
    """A tiny training that gets the signal then, and ends by it with its state saved."""
    evaluating, at, step = MOMENTS[moment]
    folder.mkdir(exist_ok=True)
    prepare = functools.partial(signal_at, number, at, evaluating)
    ended = processes.run(folder, *TINY, *argv, "hydra.run.dir=run", prepare=prepare)
    assert ended.code == 128 + number, ended.output
    assert "Traceback" not in ended.output
    assert "python -m trainer resume run" in ended.output
    run = folder / "run"
    assert results.summary(run)["status"] == "interrupted"
    assert results.newest_step(run) == step
    return run


@pytest.mark.slow
@pytest.mark.parametrize("moment", [
    "in the test", *(pytest.param(m, marks=pytest.mark.slow) for m in list(MOMENTS)[:-1]),
])  # fmt: skip
def test_a_signal_stops_where_the_state_is_whole(whole: Path, tmp_path: Path, moment: str) -> None:
    number = signal.SIGINT if "validation" in moment else signal.SIGTERM
    run = stopped(tmp_path, number, moment)
    if moment == "in the test":  # when the best epoch's weights are in the net
        assert sha256(run) == sha256(whole)
    ended = processes.run(tmp_path, "resume", "run")
    assert ended.code == 0, ended.output
    results.assert_same(run, whole)


@pytest.mark.slow
def test_stopped_in_every_leg(whole: Path, tmp_path: Path) -> None:
    """One batch further each time, in training and in evaluation."""
    run = stopped(tmp_path, signal.SIGTERM, "in an epoch")
    for leg in range(30):
        prepare = functools.partial(signal_at, signal.SIGINT, 0, leg % 2 == 1)
        ended = processes.run(tmp_path, "resume", "run", prepare=prepare)
        if ended.code == 0:
            break
        assert ended.code == 130, ended.output
    assert 4 <= leg < 29
    results.assert_same(run, whole)


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_harms_nothing(whole: Path, tmp_path: Path) -> None:
    """Of SIGINT; SIGTERM within a second is one that was sent twice, see test_signals.py."""
    number = signal.SIGINT
    prepare = functools.partial(signal_at, number, 5, TRAINING, times=2)
    ended = processes.run(
        tmp_path, *TINY, "save_every_steps=2", "hydra.run.dir=run", prepare=prepare
    )
    assert ended.code == 128 + number, ended.output
    assert "Traceback" not in ended.output
    run = tmp_path / "run"
    assert results.sound_steps(run) == [2, 4]
    assert processes.run(tmp_path, "resume", "run").code == 0
    results.assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_moment_ends_with_its_code(tmp_path: Path, number: int) -> None:
    """While it composes, makes folders, builds, trains: no traceback, no folder that stands in
    the way, nothing that a `resume` cannot go on from. To the whole group, as a terminal does."""
    for trial in range(12):
        here = tmp_path / str(trial)
        here.mkdir()
        leg = processes.Command(here, [*TINY, "epochs=1000", "num_workers=2", "hydra.run.dir=run"])
        leg.wait_for(lambda leg=leg: leg.leads_group)
        time.sleep(0.02 + 0.08 * trial)
        leg.send(number, to_group=True)
        began = time.monotonic()
        ended = leg.wait()
        if ended.code != -number:  # it came before Python was listening at all
            assert ended.code == 128 + number, ended.output
            assert time.monotonic() - began < 5
        assert "Traceback" not in ended.output, ended.output
        if results.newest_step(here / "run"):
            assert results.sound_steps(here / "run")
            assert results.leftovers(here / "run") == []


# --- what may change on the way -------------------------------------------------------------------


@pytest.mark.slow
def test_time_is_not_trusted(whole: Path, tmp_path: Path) -> None:
    """The clock is set back by a year between two legs, and the files' times are shuffled: the
    newest state is the one of the highest step, and the curves are drawn once."""
    run = stopped(tmp_path, signal.SIGTERM, "at the last step of all", "save_every_steps=3",
                  "tensorboard=true")  # fmt: skip
    for age, path in enumerate(checkpoints.states_in(run / "checkpoints")):
        os.utime(path, (10**9 - age, 10**9 - age))
    ended = processes.run(tmp_path, "resume", "run", prepare=set_back)
    assert ended.code == 0, ended.output
    assert results.started_at(ended.output) == 8
    results.assert_same_but_curves(run, whole)
    steps = [step for step, _ in results.curves(run)["loss/val"]]
    assert steps == [4, 8]
    assert 0 < results.summary(run)["train_s"] < 3600


def set_back() -> None:
    now = time.time
    time.time = lambda: now() - 365 * 24 * 3600


def test_the_newest_is_the_highest_step_not_the_last_name(tmp_path: Path) -> None:
    folder = checkpoints.CheckpointFolder(tmp_path)
    for step in (9, 10, 100):
        folder.save_state(step, {"model": {}, "step": step})
    assert [path.name for path in folder.states()] == ["step_10.pth", "step_100.pth"]


CHANGES = [
    (("optimizer=sgd",), ["optimizer._target_", "torch.optim.Adam", "torch.optim.SGD", "--force"]),
    (("seed=1", "batch_size=4"), ["seed: 0 -> 1", "batch_size: 8 -> 4", "--force"]),
    (("model=lenet5",), ["model._target_", "--force"]),
    (("data.num_train=60",), ["data.num_train: 48 -> 60", "--force"]),
    (("--force", "optimizer=sgd"), ["optimizer", "Adam", "SGD"]),
    (("--force", "model.hidden=[9]"), ["model.*", "fc.weight"]),
    (("--force", "data.num_train=60"), ["data", "not those that the training started with"]),
    (("--force", "data.num_classes=5"), ["data"]),
]


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stopped(tmp_path_factory.mktemp("unfinished"), signal.SIGTERM, "in an epoch")


FORCED = [pytest.param(*change, marks=pytest.mark.slow) for change in CHANGES[5:]]


@pytest.mark.parametrize(
    ("words", "parts"), CHANGES[:5] + FORCED, ids=[" ".join(words) for words, _ in CHANGES]
)
def test_another_training_is_refused(
    unfinished: Path, tmp_path: Path, words: tuple[str, ...], parts: list[str]
) -> None:
    run = Path(shutil.copytree(unfinished, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    refused(processes.run(tmp_path, "resume", "run", *words), *parts)
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("num_workers=2", "log_interval=3", "save_every_steps=1"), ("--force", "seed=0")],
    ids=" ".join,
)  # fmt: skip
def test_what_may_change(
    unfinished: Path, whole: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    run = Path(shutil.copytree(unfinished, tmp_path / "run"))
    ended = processes.run(tmp_path, "resume", "run", *words)
    assert ended.code == 0, ended.output
    results.assert_same(run, whole)


@pytest.mark.slow
def test_a_forced_option_is_in_effect(unfinished: Path, whole: Path, tmp_path: Path) -> None:
    """Not that of the optimizer's state, which torch would put back."""
    run = Path(shutil.copytree(unfinished, tmp_path / "run"))
    ended = processes.run(tmp_path, "resume", "run", "--force", "optimizer.lr=0.75")
    assert ended.code == 0, ended.output
    last, usual = (results.rows(folder)[-1]["lr"] for folder in (run, whole))
    assert last == usual / 4
    state = checkpoints.read(checkpoints.states_in(run / "checkpoints")[-1])
    assert state["optimizer"]["param_groups"][0]["initial_lr"] == 0.75


@pytest.mark.slow
def test_another_machine_is_a_warning(unfinished: Path, tmp_path: Path) -> None:
    """Of the last bits nobody can promise anything across versions and numbers of threads."""
    run = Path(shutil.copytree(unfinished, tmp_path / "run"))
    newest = checkpoints.states_in(run / "checkpoints")[-1]
    entries = checkpoints.read(newest)
    entries["machine"] |= {"torch": "2.13.0", "num_threads": "4"}
    checkpoints.write(newest, entries)
    ended = processes.run(tmp_path, "resume", "run")
    assert ended.code == 0, ended.output
    assert "torch was 2.13.0" in ended.output
    assert "num_threads was 4" in ended.output
    same = Path(shutil.copytree(unfinished, tmp_path / "same"))
    assert " was " not in processes.run(same.parent, "resume", "same").output


WHERE = [
    ("nowhere", ["nowhere", "no run"]),
    ("empty", ["empty", "no run"]),
    ("weights", ["no intact state"]),
]


@pytest.mark.parametrize(("name", "parts"), WHERE)
def test_there_is_nothing_to_resume(
    whole: Path, tmp_path: Path, name: str, parts: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    weights = tmp_path / "weights" / "checkpoints"
    weights.mkdir(parents=True)
    shutil.copy(whole / "checkpoints" / "best.pth", weights)
    refused(processes.run(tmp_path, "resume", name), name, *parts)


@pytest.mark.slow
def test_the_same_command_twice(tmp_path: Path) -> None:
    """In new processes, deterministic kernels or not."""
    words = ("model=lenet5", "data.shape=[1,12,12]")
    plain = [w for w in TINY if not w.startswith(("model.", "data.shape"))]
    shas = []
    for name, more in (("a", ()), ("b", ()), ("c", ("deterministic=true",))):
        (tmp_path / name).mkdir()
        processes.train(tmp_path / name, *plain, *words, *more)
        shas.append(sha256(tmp_path / name / "run"))
    assert shas[0] == shas[1]
    assert shas[0] == shas[2]  # on a CPU all kernels of these layers are deterministic
