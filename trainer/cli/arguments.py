"""Words of a command on files: plain words, and key=value where the key is a known one."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from trainer.config import knobs
from trainer.config.suggestions import meant, of_option
from trainer.errors import UserError
from trainer.system.error_texts import UNRECOGNIZED
from trainer.system.paths import at_home
from trainer.system.progress_bars import starting
from trainer.text.values import unknown_name_message

T = TypeVar("T")

# What may change when a checkpoint is used: where and how it computes, never what it is.
MACHINE_KEYS = (
    "device", "precision", "num_threads", "channels_last", "deterministic", "layers", "trust"
)  # fmt: skip

# Bytes of a name, as file systems have it; of one that is written under another name at first.
LONGEST_NAME, LONGEST_OUTPUT = 255, 220


def parse_words(
    parser: argparse.ArgumentParser, argv: list[str], keys: Iterable[str]
) -> tuple[argparse.Namespace, dict[str, str]]:
    """The parser's own arguments, and the key=value words as raw text.

    A word with `=` is a key if the part before it is known (`data.` in keys stands for all below
    it), has no / or : in it, and no such file exists; options and keys may stand anywhere, `--`
    ends them.
    """
    keys = tuple(keys)
    parser.usage = f"{parser.format_usage().removeprefix('usage: ').rstrip()} [key=value ...]"
    end = argv.index("--") if "--" in argv else len(argv)
    words: list[str] = []
    values: dict[str, str] = {}
    refuse_in_words(parser, argv, keys)
    for word in argv[:end]:
        key, equals, value = word.partition("=")
        if takes_value(parser, words):  # -o results/lr=0.1
            words.append(word)
        elif (
            equals
            and not word.startswith("-")
            and not {"/", ":"} & set(key)
            and not os.path.exists(word)
        ):
            if not takes(key, keys):
                names = [f"{k}<name>" if k.endswith(".") else k for k in keys]
                near = meant(key, (k for k in (*keys, *knobs.KNOBS) if takes(k, keys)))
                hint = f"\n{key} may be {near}=..." if near else ""
                raise UserError(unknown_name_message("key of this command", key, names) + hint)
            values[key] = value
        else:
            words.append(word)
    args = parser.parse_intermixed_args([*words, *argv[end:]])
    for name in ("output", "checkpoint", "run_dir", "file"):
        if isinstance(path := getattr(args, name, None), Path):
            setattr(args, name, at_home(path))
            refuse_long(path, LONGEST_OUTPUT if name == "output" else LONGEST_NAME)
    if isinstance(getattr(args, "checkpoint", None), Path):
        args.checkpoint = existing(args.checkpoint)
    starting()
    return args, values


def refuse_in_words(
    parser: argparse.ArgumentParser, argv: Sequence[str], keys: Iterable[str]
) -> None:
    """Turn argparse's messages into UserErrors, with what the words may have meant."""
    refuse_empty(parser)
    single = [key for key in (*keys, *knobs.KNOBS) if key in knobs.KNOBS or key in knobs.GROUPS]

    def refuse(message: str) -> NoReturn:
        hint = of_option(argv, single) if UNRECOGNIZED in message else ""
        usage = f"Run {parser.prog} --help to see what it takes."
        raise UserError(f"{parser.prog}: {message[:500]}\n{hint or usage}")

    parser.error = refuse  # type: ignore[method-assign]


def refuse_empty(parser: argparse.ArgumentParser) -> None:
    """No path may be the empty text, which a script makes of a variable that is not set: pathlib
    takes it for the current folder."""
    for action in parser._actions:
        is_word = action.nargs != 0 and not action.option_strings
        if is_word or action.type is Path:
            action.type = partial(filled, Path if action.type is Path else str)


def filled(kind: Callable[[str], T], text: str) -> T:
    """Raises what argparse makes a message of."""
    if not text:
        raise argparse.ArgumentTypeError("'' is empty; must be a path (. is the current folder).")
    return kind(text)


def takes_value(parser: argparse.ArgumentParser, words: Sequence[str]) -> bool:
    """True if the last of these words is an option whose value comes next."""
    last = words[-1] if words else ""
    if not last.startswith("-") or "=" in last or last == "-":
        return False
    options = parser._option_string_actions
    found = [options[last]] if last in options else [
        action for name, action in options.items() if last[:2] == "--" and name.startswith(last)
    ]  # fmt: skip
    return bool(found) and found[0].nargs is None


def refuse_to_replace(path: Path, source: Path, force: bool) -> None:
    """Raises UserError if there is no folder for a file, or one is there that may not be replaced;
    what is read never may."""
    if not path.absolute().parent.is_dir():
        raise UserError(f"-o {path}: there is no folder {path.parent}.")
    if path.exists() and path.samefile(source):
        raise UserError(f"-o {path}: this is the checkpoint itself. Give another name.")
    if path.exists() and not force:
        raise UserError(f"{path}: exists. --force replaces it, -o FILE takes another name.")


def refuse_long(path: Path, longest: int) -> None:
    """Before anything is computed that would then have no place. Raises UserError."""
    if any(len(os.fsencode(part)) > longest for part in path.parts):
        raise UserError(f"{str(path)[:80]}...: a name in it is longer than {longest} bytes.")


def takes(key: str, keys: Sequence[str]) -> bool:
    """True if a key is among these, of which `data.` stands for all below it."""
    below = any(k.endswith(".") and key.startswith(k) and key != k for k in keys)
    return below or (key in keys and not key.endswith("."))


def existing(checkpoint: Path, taken: str = "") -> Path:
    """The file, or the best weights of a run's folder; `taken` says what the command takes, if not
    checkpoints. Said before torch is imported, which takes seconds. Raises UserError."""
    if checkpoint.suffix in (".onnx", ".pt2") and os.path.exists(checkpoint):
        source = checkpoint.with_suffix(".pth")
        known = source if os.path.exists(source) else "the .pth file that it was made of"
        raise UserError(
            f"{checkpoint}: is made for other programs, such as onnxruntime and torch.export. "
            f"Here, give {known}."
        )
    if os.path.isdir(checkpoint):
        best = checkpoint / "checkpoints" / "best.pth"
        if os.path.isfile(best):
            return best
        taken = taken or (
            f"A checkpoint is a .pth file of a run, for example {best}, which does not exist."
        )
        raise UserError(f"{checkpoint}: is a folder. {taken}")
    if not os.path.isfile(checkpoint):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
            os.stat(checkpoint)  # says so where it may not be looked at
        taken = taken or (
            "A checkpoint is a run's folder or a .pth file, for example "
            "outputs/<date>/<time>/checkpoints/best.pth."
        )
        raise UserError(f"{checkpoint}: there is no such file. {taken}")
    return checkpoint
