"""Files that want to run code, by what is pickled in them or by what their configuration names:
none is run, and the user is told which name it was."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import processes, results
from tests.helpers.commands import Finished
from tests.helpers.tiny_training import TINY, as_checkpoint, refused, whole_run
from trainer import checkpoints

Dispatch = Callable[..., Finished]


@pytest.fixture
def sound_run() -> Path:
    return whole_run()


def states(run: Path) -> list[Path]:
    return checkpoints.states_in(run / "checkpoints")


class Touch:
    """Unpickling it makes the file `canary`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


class Nested:
    """The same, inside torch's own function for storages, which unpickles freely."""

    def __reduce__(self) -> tuple[Any, ...]:
        buffer = io.BytesIO()
        torch.save(Touch(), buffer)
        return torch.storage._load_from_bytes, (buffer.getvalue(),)


class Net(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def hostile(path: Path, kind: str) -> None:
    content = as_checkpoint(w=torch.ones(2)) | {"extra": Touch()}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "nested":
        torch.save(content | {"extra": Nested()}, path)
    elif kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"extra": Touch()}, protocol=int(kind[-1])))
    elif kind == "tar":
        (path.parent / "pickle").write_bytes(pickle.dumps(Touch()))
        with tarfile.open(path, "w") as file:
            file.add(path.parent / "pickle", "pickle")
        (path.parent / "pickle").unlink()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            torch.jit.script(Net()).save(str(path))


KINDS = {
    "zip": "system", "legacy": "system", "nested": "_load_from_bytes", "pickle2": "system",
    "pickle4": "system", "tar": "", "torchscript": "",
}  # fmt: skip


IN_PROCESS = [["evaluate"], ["predict"], ["export", "--format", "state_dict"]]
BY_A_CHILD = [["import-weights", "--model", "mlp", "-o", "out.pth"], ["weights"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "words", IN_PROCESS + [pytest.param(words, marks=pytest.mark.slow) for words in BY_A_CHILD],
    ids=lambda words: words[0],
)  # fmt: skip
def test_no_file_runs_code(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    hostile(Path("bad.pth"), kind)
    if words == ["weights"]:
        argv = ["weights=bad.pth"]
    else:
        more = ["bad.pth"] if words[0] == "predict" else []
        argv = [words[0], "bad.pth", *words[1:], *more]
    done = dispatch(*argv)
    assert done.returncode == 2, done.output
    assert "bad.pth" in done.stderr
    assert KINDS[kind] in done.stderr
    assert "weights_only" not in done.stderr
    assert "Traceback" not in done.output
    assert [path.name for path in Path().iterdir()] == ["bad.pth"]  # no canary, no output


@pytest.mark.parametrize(
    "kind", ["zip", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(KINDS)[1:])]
)
def test_resume_runs_no_code(sound_run: Path, tmp_path: Path, kind: str) -> None:
    """Among sound states a hostile one, of a higher step than any."""
    run = Path(shutil.copytree(sound_run, tmp_path / "run"))
    hostile(run / "checkpoints" / "step_99.pth", kind)
    (run / "summary.json").unlink()
    ended = processes.run(tmp_path, "resume", "run", prepare=trust_the_environment)
    assert ended.code == 0, ended.output
    assert "step_99.pth: " in ended.output
    assert KINDS[kind] in ended.output
    assert results.started_at(ended.output) == 8
    assert not list(tmp_path.rglob("canary"))


def trust_the_environment() -> None:
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def test_the_canary_would_sing(dispatch: Dispatch) -> None:
    for kind in ("zip", "legacy", "nested"):
        hostile(Path("bad.pth"), kind)
        torch.load("bad.pth", weights_only=False)
        Path("canary").unlink()


# --- checkpoints whose own configuration names what it should not -------------------------------


def forged(run: Path, group: str, target: str) -> None:
    """Let the configuration in all checkpoints of a run name something, with a right digest."""
    for path in [*states(run), run / "checkpoints" / "best.pth"]:
        entries = checkpoints.read(path)
        before, mark, after = entries["config"].partition(f"{group}:\n  _target_: ")
        assert mark, entries["config"]
        entries["config"] = f"{before}{mark}{target}\n{after.partition(chr(10))[2]}"
        checkpoints.write(path, entries)


TARGETS = [
    ("model", "os.system"), ("data", "data.roots.os.system"), ("loss", "builtins.eval"),
    ("augment", "data.augment.policy.partial"), ("model", "torch.hub.load"),
    ("model", "nowhere.Net"),
    ("model", "trainer.job.run"), ("data", "subprocess.run"), ("optimizer", "torch.load"),
    ("loss", "shutil.rmtree"), ("scheduler", "trainer.schedules.math.sqrt"),
]  # fmt: skip
MORE = [pytest.param(*target, marks=pytest.mark.slow) for target in TARGETS[4:]]


@pytest.mark.parametrize(
    ("group", "target"), TARGETS[:4] + MORE, ids=[target for _, target in TARGETS]
)
def test_a_checkpoint_may_not_name_what_is_not_ours(
    sound_run: Path, tmp_path: Path, dispatch: Dispatch, group: str, target: str
) -> None:
    run = Path(shutil.copytree(sound_run, tmp_path / "run"))
    forged(run, group, target)
    best = "run/checkpoints/best.pth"
    for argv in (["evaluate", best], ["predict", best, best],
                 ["export", best, "--format", "state_dict", "-o", "out.pth"]):  # fmt: skip
        done = dispatch(*argv)
        assert done.returncode == 2, done.output
        assert f"{group}._target_={target}" in done.stderr
    (run / "summary.json").unlink()
    refused(processes.run(tmp_path, "resume", "run"), f"{group}._target_={target}")


MY_NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, num_classes):
        super().__init__()
        self.out = nn.Linear(shape[0] * shape[1] * shape[2], num_classes)

    def forward(self, x):
        return self.out(x.flatten(1))
"""


@pytest.mark.slow
def test_a_net_of_the_users_own_is_rebuilt_if_it_is_trusted(tmp_path: Path) -> None:
    """The twin: training takes what the user writes; a file is believed when he names the module.

    A module of the same name in the process may be another's, so each command is one."""
    (tmp_path / "my_nets.py").write_text(MY_NETS)
    Image.new("L", (4, 4)).save(tmp_path / "picture.png")
    words = [w for w in TINY if not w.startswith("model.")]
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(
        "_target_: my_nets.Net\nshape: ${data.shape}\nnum_classes: ${data.num_classes}\n"
    )
    leg = processes.Command(
        tmp_path, ["--config-dir", "conf", *words, "model=mine", "epochs=500", "hydra.run.dir=run"]
    )
    assert leg.wait_for(lambda: results.newest_step(tmp_path / "run") >= 8), leg.output
    leg.kill()
    best = "run/checkpoints/best.pth"
    for argv in (["resume", "run", "--force", "epochs=4"], ["evaluate", best],
                 ["predict", best, "picture.png"]):  # fmt: skip
        refused(processes.run(tmp_path, *argv), "model._target_=my_nets.Net", "trust=my_nets")
        refused(processes.run(tmp_path, *argv, "trust=your_nets"), "my_nets.Net")
    for argv in (["evaluate", best], ["predict", best, "picture.png"]):
        ended = processes.run(tmp_path, *argv, "trust=my_nets")
        assert ended.code == 0, ended.output
    newest = results.newest_step(tmp_path / "run")
    last = str(newest // 4 + 2)
    ended = processes.run(tmp_path, "resume", "run", "--force", f"epochs={last}", "trust=my_nets")
    assert ended.code == 0, ended.output
    assert results.summary(tmp_path / "run")["status"] == "finished"
