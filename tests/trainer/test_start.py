"""What each command imports before it answers: each package more is waited for at every start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import ROOT

# What others have put into site-packages may be imported by Python itself, at any start.
TOLD = """
import json, sys
before = set(sys.modules)
import trainer.__main__ as entry
sys.argv = [{told!r}, *{words}]
try:
    entry.main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    with open(sys.argv[0], "w") as file:
        json.dump(sorted(set(sys.modules) - before), file)
"""
YAML = {"yaml", "_yaml", "cython_runtime"}
CONFIGURATION = YAML | {"omegaconf", "antlr4"}
TORCH = {
    "torch",
    "numpy",
    "typing_extensions",
    "torchgen",
    "filelock",
    "fsspec",
    "cuda",
    "packaging",
}
TRAINING = (
    CONFIGURATION | TORCH
    | {"hydra", "safetensors", "tqdm", "threadpoolctl", "PIL", "data", "models"}
)  # fmt: skip
EVENTS = {"tensorboard", "absl", "google"}
ALLOWED: dict[str, set[str]] = {
    "--help": YAML,
    "--cfg job": CONFIGURATION | {"hydra", "packaging", "data"},
    "compare": CONFIGURATION | {"numpy", "data"},
    "report": CONFIGURATION | {"jinja2", "markupsafe", "data"},
    "predict": TRAINING,
    "training": TRAINING | EVENTS,
    "training without TensorBoard": TRAINING,
}
# Of torch: the compiler, its algebra, and what a training on one device has no use for.
SMALL = ["data=synthetic", "data.num_train=200", "data.num_test=10", "epochs=1"]
NEVER = ("torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.flop_counter")


def imported(words: list[str], cwd: Path) -> list[str]:
    told = cwd / "modules.json"
    code = TOLD.format(words=words, told=str(told))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(told.read_text())
    return names


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("start")
    Image.new("L", (28, 28)).save(cwd / "image.png")
    names = imported([*SMALL, "hydra.run.dir=run"], cwd)
    (cwd / "training.json").write_text(json.dumps(names))
    return cwd / "run"


@pytest.mark.parametrize("command", ALLOWED)
def test_a_command_imports_nothing_that_it_has_no_use_for(command: str, run: Path) -> None:
    words = {
        "compare": ["compare", str(run), str(run)],
        "report": ["report", str(run)],
        "predict": ["predict", str(run / "checkpoints" / "best.pth"), "image.png"],
        "training without TensorBoard": [*SMALL, "tensorboard=false", "hydra.run.dir=plain"],
    }.get(command, command.split())  # fmt: skip
    if command == "training":
        names = json.loads((run.parent / "training.json").read_text())
    else:
        names = imported(words, run.parent)
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"trainer"}
    assert {name for name in packages if not name.startswith("_")} <= ALLOWED[command] | YAML
    assert not [name for name in names if name.startswith(NEVER)]
