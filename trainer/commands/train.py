"""`python -m trainer [key=value ...]`: train, validate each epoch, test the best weights once."""

from __future__ import annotations

import logging
import os
import shlex
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import config as knobs
from trainer.compose import Composer, call_hydra, parse, plain, quoted
from trainer.errors import Stopped, TrainingError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trainer.metrics import Metrics
    from trainer.state import Run

log = logging.getLogger("trainer")

CHECKED_WITH_TORCH = ("device", "precision", "weights", "replace_head", "freeze", *knobs.GROUPS)


def main(argv: list[str]) -> int:
    args = parse(argv)
    if args.help or args.hydra_help or args.shell_completion:
        call_hydra(argv, task)
        return 0
    composer = Composer(args)
    master = composer.master()
    jobs = [plain(job) for job in composer.jobs(master)]
    for job in jobs:
        knobs.check(job)
    if args.cfg or args.info:
        call_hydra(argv, task)
        return 0
    check_with_torch(jobs)
    kind = "sweep" if args.multirun else "run"
    folder = claim_folder(master, args.overrides, kind)
    try:
        call_hydra([*argv, f"hydra.{kind}.dir={quoted(str(folder))}"], task)
    except Exception:
        if not args.multirun or not any(folder.iterdir()):
            raise
    finally:
        remove_if_empty(folder)
    return report_sweep(folder) if args.multirun else 0


def report_sweep(folder: Path) -> int:
    """The table of all jobs, the failed ones with their reason."""
    from trainer.commands.report import read_runs, table

    rows = read_runs(folder)
    print(f"\n{table(rows, folder)}")
    return int(any(row.status != "finished" for row in rows))


def check_with_torch(jobs: list[dict[str, Any]]) -> None:
    """What only torch, the data and the model can tell; each distinct part once per sweep."""
    from trainer import build

    seen: list[dict[str, Any]] = []
    for job in jobs:
        parts = {key: job[key] for key in CHECKED_WITH_TORCH}
        if parts not in seen:
            seen.append(parts)
            build.check(job)


def claim_folder(master: DictConfig, overrides: list[str], kind: str) -> Path:
    """Make the folder of this run or sweep, one that nobody else has."""
    folder = Path(str(master.hydra[kind].dir)).absolute()
    if any(word.startswith(f"hydra.{kind}.dir=") for word in overrides):
        refuse_used(folder)
        return make_folder(folder, exist_ok=True)
    for attempt in range(1, 1000):
        try:
            suffix = f"-{attempt}" if attempt > 1 else ""
            return make_folder(folder.with_name(folder.name + suffix), exist_ok=False)
        except FileExistsError:
            continue
    raise UserError(f"{folder}: a thousand folders of this name exist already.")


def make_folder(folder: Path, exist_ok: bool) -> Path:
    if "${" in str(folder):
        raise UserError(f"{folder}: Hydra cannot work in a folder with ${{ in its name.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=exist_ok)
    except FileExistsError:
        if folder.is_dir():
            raise
        raise UserError(f"{folder}: is a file, not a folder.") from None
    except OSError as error:
        raise UserError(
            f"{folder}: the run's folder cannot be made: {error.strerror}.\n"
            "Start from a folder that you may write in, or give hydra.run.dir=FOLDER."
        ) from error
    return folder


def refuse_used(folder: Path) -> None:
    if any((folder / name).exists() for name in (".hydra", "metrics.jsonl", "multirun.yaml")):
        raise UserError(
            f"{folder}: holds a run already, which would be overwritten.\n"
            f"Continue it with `python -m trainer resume {folder}`, or choose another folder."
        )


def remove_if_empty(folder: Path) -> None:
    """Hydra may still refuse to start; then nothing is left behind."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def task(cfg: DictConfig) -> None:
    """One job, in the folder that Hydra has made. A failure is told in the job's own log; a job of
    a sweep then raises, so that Hydra goes on with the next."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    folder, in_sweep = Path(hydra.runtime.output_dir), hydra.mode == RunMode.MULTIRUN
    try:
        run_job(plain(cfg), folder, dict(hydra.runtime.choices), in_sweep)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None  # ends a sweep, too
    except Exception as error:
        tell(error, folder / f"{hydra.job.name}.log")
        if in_sweep:
            raise
        raise SystemExit(2 if isinstance(error, UserError) else 1) from None


def tell(error: Exception, log_file: Path) -> None:
    """One message for people; of an error that nobody foresaw, the traceback in the log file."""
    if isinstance(error, TrainingError | UserError):
        log.error("%s", error)
        return
    log.error("%s: %s\nThe traceback is in %s", type(error).__name__, error, log_file)
    with open(log_file, "a", encoding="utf-8") as file:
        traceback.print_exc(file=file)


def run_job(config: dict[str, Any], folder: Path, choices: dict[str, Any], in_sweep: bool) -> None:
    """Build, train, test, and say what came of it."""
    from trainer import build, loop, runtime

    with runtime.StopSignals().listen() as signals:
        run = build.build(config, folder, signals)
        try:
            introduce(run, choices)
            loop.fit(run)
            sha256 = weights_sha256(run)
            test = loop.test_best(run)
            run.log.row(run.progress, "test", test, run.lr)
            summary = summarise(run, folder, "finished", test, sha256)
            run.log.hparams(
                hparams(config, choices, run),
                {"accuracy/test": test.accuracy, "loss/test": test.loss,
                 "accuracy/val": run.best.accuracy},
            )  # fmt: skip
        except BaseException as error:
            status = "interrupted" if isinstance(error, (Stopped, KeyboardInterrupt)) else "failed"
            summarise(run, folder, status, reason=str(error).partition("\n")[0])
            if status == "interrupted":
                log.info("Stopped. Continue with: python -m trainer resume %s", show(folder))
            raise
        finally:
            run.log.close()
    conclude(summary)
    if not in_sweep:
        show_next(run, folder)


def introduce(run: Run, choices: dict[str, Any]) -> None:
    """What is about to be trained, on what, where."""
    import torch

    shape = "x".join(map(str, run.description.shape))
    log.info("%s: %s parameters, %s multiply-adds per picture, input %s",
             choices.get("model"), f"{run.cost.num_parameters:,}", f"{run.cost.macs:,}",
             shape)  # fmt: skip
    log.info("%s: %s train, %s val, %s test pictures, %d classes", choices.get("data"),
             *(f"{b.num_images:,}" for b in (run.train, run.val, run.test)),
             len(run.description.classes))  # fmt: skip
    threads = torch.get_num_threads()
    on_cpu = f", {threads} thread{'s' * (threads > 1)}" if run.device.type == "cpu" else ""
    log.info("device %s%s, %d epochs of %d steps", run.device, on_cpu, run.epochs, len(run.train))
    if run.enlarges:
        log.info(run.enlarges)


def weights_sha256(run: Run) -> str:
    from trainer.checkpoint import weights_sha256

    return weights_sha256(run.model.state_dict())


def summarise(
    run: Run,
    folder: Path,
    status: str,
    test: Metrics | None = None,
    sha256: str | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Write summary.json, and hand it back."""
    from trainer import runtime
    from trainer.log import write_summary

    progress, best = run.progress, run.best
    summary = {
        "status": status,
        "reason": reason,
        "test_accuracy": test.accuracy if test else None,
        "test_loss": test.loss if test else None,
        "val_accuracy": best.accuracy if best.epoch else None,
        "best_epoch": best.epoch or None,
        "epochs": progress.epoch,
        "steps": progress.step,
        "num_parameters": run.cost.num_parameters,
        "train_s": round(progress.train_s, 3),
        "images_per_s": round(progress.num_images / progress.train_s, 1)
        if progress.train_s
        else None,
        "peak_memory_bytes": runtime.peak_memory_bytes(run.device),
        "weights_sha256": sha256 or weights_sha256(run),
        "checkpoint": str(run.checkpoints.best) if best.epoch else None,
        "device": str(run.device),
        "versions": run.description.versions,
    }
    write_summary(folder, summary)
    return summary


def hparams(config: dict[str, Any], choices: dict[str, Any], run: Run) -> dict[str, Any]:
    """The same keys in every run: TensorBoard shows only those of the first one that it reads."""
    return {
        **{group: str(choices.get(group)) for group in knobs.GROUPS},
        **{key: config[key] for key in ("epochs", "batch_size", "seed", "precision")},
        "lr": config["optimizer"]["lr"],
        "weight_decay": config["optimizer"].get("weight_decay", 0.0),
        "num_parameters": run.cost.num_parameters,
    }


def conclude(summary: dict[str, Any]) -> None:
    """What was reached."""
    log.info("")
    log.info("test accuracy %.4f   loss %.4f   with the weights of epoch %s (val accuracy %.4f)",
             summary["test_accuracy"], summary["test_loss"], summary["best_epoch"] or "last",
             summary["val_accuracy"] or 0.0)  # fmt: skip
    log.info("trained for %.1f s at %s images/s, %s steps", summary["train_s"],
             f"{summary['images_per_s']:,.0f}", f"{summary['steps']:,}")  # fmt: skip


def show_next(run: Run, folder: Path) -> None:
    """Where it lies, and the lines to copy."""
    log.info("run folder    %s", show(folder))
    log.info("look closer   python -m trainer evaluate %s", show(run.checkpoints.best))
    log.info("see curves    tensorboard --logdir %s", show(folder.parent))


def show(path: Path) -> str:
    """A path as short as it can be pasted here, quoted where a shell needs it."""
    short = os.path.relpath(path)
    return shlex.quote(str(path) if short.startswith("..") else short)
