"""From the command line's words to the module that does them, and from errors to exit codes."""

from __future__ import annotations

import importlib
import re

from trainer.config import knobs
from trainer.config.suggestions import of_command
from trainer.errors import (
    Stopped,
    TrainingError,
    UserError,
    complain,
    exit_code,
    fault_in,
    in_words,
)
from trainer.system import distributed
from trainer.system.progress_bars import starting
from trainer.system.signals import StopSignals
from trainer.text.printable import STDOUT
from trainer.text.values import unknown_name_message

# Command -> what it does. The module trainer.cli.<name, with _ for -> has main(argv) -> int.
COMMANDS = {
    "resume": "resume an interrupted run",
    "evaluate": "metrics of a checkpoint on the test or validation split",
    "predict": "classes of images, with probabilities",
    "export": "a model for other programs: its weights, safetensors, ONNX, torch.export",
    "import-weights": "weights of others (torchvision, MatConvNet, safetensors) as a checkpoint",
    "inspect": "a dataset without training: copies in several splits, damaged files, labels",
    "schedule": "the learning rate of a training, drawn without training",
    "find-lr": "a learning rate for a training, by a short sweep",
    "summary": "layer table of a model on a dataset",
    "compare": "which of several runs is better, and how sure that is",
    "report": "a page for a run; a table and a page over runs, or the jobs of a sweep",
}

# What a training answers at once.
QUICK = {"--hydra-help", "-c", "--cfg", "-i", "--info", "-sc",
         "--shell-completion"}  # fmt: skip


def dispatch(argv: list[str]) -> int:
    """Run what these words ask for. Returns the exit code: 0 done, 1 training failed, 2 wrong
    input, 128 + n stopped by signal n."""
    try:
        with StopSignals().raised():
            if distributed.place() is not None:
                distributed.begin()
            return _run(argv)
    except (UserError, TrainingError) as error:
        if not distributed.is_other():  # the first process tells it
            complain(error)
        return exit_code(error)
    except Exception as error:
        fault = fault_in(error)
        if fault is None or fault.filename == STDOUT or isinstance(fault, BrokenPipeError):
            raise  # to whoever has called: it is no file's fault
        complain(in_words(fault))
        return exit_code(fault)
    except Stopped as stopped:
        return stopped.exit_code


def _run(argv: list[str]) -> int:
    if argv and argv[0] in ("--version", "-V"):
        print("\n".join(versions()))
        return 0
    if argv and re.fullmatch(r"[A-Za-z][\w-]*", argv[0]):
        return _command(argv[0], argv[1:])
    if {"-h", "--help"} & set(argv):
        from trainer.cli.help import help_text

        print(help_text(COMMANDS))
        return 0
    if not QUICK & set(argv) and distributed.place() is None:
        starting()
    from trainer.cli import train

    return train.main(argv)


def _command(name: str, argv: list[str]) -> int:
    if name in (*knobs.KNOBS, *knobs.GROUPS):
        raise UserError(f"{name}: a key needs a value: {name}=...")
    if name not in COMMANDS:
        if hint := of_command(name, argv):
            raise UserError(f"There is no command '{name}'. {hint}")
        raise UserError(
            unknown_name_message("command", name, COMMANDS)
            + "\nTraining takes key=value words: python -m trainer model=lenet5. See --help."
        )
    if name != "resume" and distributed.is_other():
        return 0  # the first process alone does it
    module = importlib.import_module("trainer.cli." + name.replace("-", "_"))
    return module.main(argv)


def versions() -> list[str]:
    """Of the program, torch and Hydra, told without importing them."""
    import importlib.metadata  # a third of the start of --help

    lines = []
    for package in ("trainer", "torch", "hydra-core"):
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            lines.append(f"{package} (not installed)")
    return lines
