"""The command line from outside: help, configuration, folders, sweeps, signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.helpers.commands import ROOT, Finished, TrainedRun, read_json, run_trainer, train
from tests.helpers.small_sweeps import job_of
from trainer.config.hydra_internals import ConfigLoaderImpl, create_config_search_path


def loaded_modules(*argv: str, cwd: Path) -> str:
    """Everything that a command imports, as the interpreter tells it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", *argv],
        cwd=cwd, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr


@pytest.mark.slow
def test_a_training_does_not_import_the_compiler(tmp_path: Path) -> None:
    modules = loaded_modules("epochs=1", "limit_batches=2", "hydra.run.dir=run", cwd=tmp_path)
    modules += loaded_modules("evaluate", "run/checkpoints/best.pth", cwd=tmp_path)
    assert re.search(r"\| +torch$", modules, re.MULTILINE)
    assert not re.search(r"\| +torch\._dynamo$", modules, re.MULTILINE)


@pytest.mark.parametrize("argv", [["--help"], ["--cfg", "job"], ["report", "--help"]])
def test_torch_is_not_imported_to_answer(tmp_path: Path, argv: list[str]) -> None:
    modules = loaded_modules(*argv, cwd=tmp_path)
    assert re.search(
        r"\| +trainer\.cli\.dispatch$", modules, re.MULTILINE
    )  # the list is a real one
    assert not re.search(r"\| +torch$", modules, re.MULTILINE)


def test_help_is_short_and_names_every_group_with_its_choices(tmp_path: Path) -> None:
    done = run_trainer("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) < 80
    for folder in (ROOT / "configs").iterdir():
        if folder.is_dir() and folder.name not in ("hydra", "__pycache__"):
            assert f"{folder.name}: " in done.stdout
            for file in folder.glob("*.yaml"):
                assert re.search(rf"\b{file.stem}\b", done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_groups_that_hydra_finds(dispatch: Callable[..., Finished]) -> None:
    loader = ConfigLoaderImpl(create_config_search_path(str(ROOT / "configs")))
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    said = re.findall(r"^([a-z]+): (.*)$", dispatch("--help").stdout, re.MULTILINE)
    assert said == [(group, ", ".join(loader.get_group_options(group))) for group in groups]


def test_cfg_job_shows_what_would_run(tmp_path: Path) -> None:
    done = run_trainer("--cfg", "job", "model=lenet5", "optimizer=sgd", "epochs=3", cwd=tmp_path)
    shown = yaml.safe_load(done.stdout)
    assert shown["epochs"] == 3
    assert shown["model"]["_target_"] == "models.lenet.LeNet5"
    assert shown["optimizer"]["_target_"] == "torch.optim.SGD"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", "epochs=1 limit_batches=2"])
def test_a_closed_pipe_is_no_error(tmp_path: Path, words: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m trainer {words} | head -1",
        shell=True, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
@pytest.mark.parametrize(("target", "code"), [("/dev/full", 1), ("out.txt", 0)])
def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path, target: str, code: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text("{}")
    done = subprocess.run(
        f"{sys.executable} -m trainer report . > {target}",
        shell=True, cwd=tmp_path, env=os.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code
    message = "stdout: cannot be written: No space left on device.\n"
    assert done.stderr == (message if code else "")


@pytest.mark.slow
def test_a_folder_with_modules_of_the_users_own(tmp_path: Path) -> None:
    """Their data.py, models/ and configs/ must neither be imported nor be touched."""
    (tmp_path / "data.py").write_text("raise SystemExit('the wrong data module')\n")
    for name in ("models", "trainer", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    # As a console script, since `python -m trainer` would take their trainer/ by Python's own rule.
    script = Path(sys.executable).with_name("trainer")
    done = subprocess.run(
        [script, "epochs=1", "limit_batches=2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("trainer", "configs"):
        (tmp_path / name / "__init__.py").unlink()
        (tmp_path / name).rmdir() if name == "trainer" else None
    done_as_module = run_trainer("epochs=1", "limit_batches=2", cwd=tmp_path)
    assert done_as_module.returncode == 0, done_as_module.output
    assert len(list((tmp_path / "outputs").glob("*/*"))) == 2


def test_the_closing_lines_can_be_pasted(default_run: TrainedRun) -> None:
    """The command that the end of a training proposes works from the same folder."""
    proposed = re.search(r"python -m trainer (evaluate \S+)", default_run.command.stdout)
    assert proposed
    done = run_trainer(*proposed[1].split(), cwd=default_run.folder.parent)
    assert done.returncode == 0, done.output
    accuracy = default_run.summary["test_accuracy"]
    assert f"accuracy {accuracy:.4f}" in done.stdout


def test_nothing_of_the_bar_without_a_terminal(default_run: TrainedRun) -> None:
    assert default_run.command.stderr == ""
    assert "\r" not in default_run.command.stdout
    assert len(re.findall(r"^epoch ", default_run.command.stdout, re.MULTILINE)) == 20


@pytest.mark.slow
def test_runs_started_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    config = tmp_path / "mine"
    config.mkdir()
    (config / "base.yaml").write_text(
        "defaults: [config, _self_]\nhydra: {run: {dir: 'outputs/same'}}\n"
    )
    argv = ["--config-dir", str(config), "--config-name", "base", "epochs=1", "limit_batches=2"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer", *argv], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    folders = sorted(path.name for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert folders == ["same", "same-2"]
    for name in folders:
        assert read_json(tmp_path / "outputs" / name / "summary.json")["status"] == "finished"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """Four jobs; the two with a learning rate that blows up the weights fail."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = run_trainer(
        "--multirun", "optimizer=sgd", "optimizer.lr=1e30,0.05", "seed=0,1", "epochs=1",
        "loss=mse", "loss.on=logits", "hydra.sweep.dir=outputs/sweeps/mine", cwd=cwd,
    )  # fmt: skip
    return cwd, done.output, done.returncode


def test_a_failed_job_is_reported_and_the_others_go_on(sweep: tuple[Path, str, int]) -> None:
    cwd, output, code = sweep
    assert code == 1
    jobs = cwd / "outputs" / "sweeps" / "mine"
    status = [read_json(job_of(jobs, i) / "summary.json")["status"] for i in range(4)]
    assert status == ["failed", "failed", "finished", "finished"]
    reason = read_json(job_of(jobs, 0) / "summary.json")["reason"]
    assert "NaN or infinite" in reason
    assert output.count(reason) >= 2  # when it happened, and in the table at the end
    assert reason in (job_of(jobs, 0) / "trainer.log").read_text()
    assert "Traceback" not in output


def test_report_on_a_sweep(sweep: tuple[Path, str, int]) -> None:
    cwd = sweep[0]
    done = run_trainer("report", "outputs/sweeps/mine", cwd=cwd)
    assert done.returncode == 0
    table = done.stdout
    mine = cwd / "outputs" / "sweeps" / "mine"
    summary = read_json(job_of(mine, 3) / "summary.json")
    row = next(line for line in table.splitlines() if line.startswith("3_"))
    assert f"{summary['test_accuracy']:.4f}" in row
    assert "seed=1" in row
    assert "finished" in row
    other = read_json(job_of(mine, 2) / "summary.json")
    mean = (summary["test_accuracy"] + other["test_accuracy"]) / 2
    assert f"{mean:.4f}" in table.partition("over seeds")[2]
    assert "all: epochs=1" in table  # what they share is said once


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops(tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "epochs=100000", "hydra.run.dir=run"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["status"] == "interrupted"
    newest = tmp_path / "run" / "checkpoints" / f"step_{summary['steps']}.pth"
    assert newest.is_file()


def test_console_script_does_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("trainer")
    done = subprocess.run([script, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == run_trainer("--cfg", "job", cwd=tmp_path).stdout


def test_a_folder_with_a_difficult_name(tmp_path: Path) -> None:
    folder = tmp_path / "mes données, (1) 'a' [x]=é"
    folder.mkdir()
    run = train(folder, "epochs=1", "limit_batches=2", folder="'out put'")
    assert (folder / "out put" / "summary.json").is_file(), run.command.output
