"""The one way in which this package calls torch.load."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from models.weights.foreign import WeightsError, printable
from models.weights.formats import ACCEPTED, check_zip, kind_of


def safe_torch_load(path: str | Path) -> Any:
    """torch.load for files of other people: tensors and plain containers, never code.

    `weights_only=True` is passed explicitly, because without the argument the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD switches to the unsafe unpickler; with it, it has no effect.
    The old pickle format is taken too (torchvision's VGG files have it), through the same
    restricted unpickler. It has no checksums: a flipped bit in it cannot be seen.

    Raises:
        WeightsError: whatever goes wrong, with the file and the reason.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "mat":
        raise WeightsError(f"{path}: a MATLAB file, not one of torch.save; import it first")
    if kind == "zip":
        check_zip(path)
    try:
        with warnings.catch_warnings():  # old files use deprecated storage classes
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # damaged files reach every kind of exception
        raise WeightsError(f"{path}: {_reason(path, error)}") from error


def _reason(path: Path, error: Exception) -> str:
    """torch's own message advises weights_only=False; its cause, kept in __context__, does not."""
    if str(error).startswith("Weights only load failed") and error.__context__ is not None:
        error = error.__context__  # type: ignore[assignment]
    text = str(error)
    told = re.search(r"GLOBAL ([\w.]+)", text)
    forbidden = [told[1]] if told else _foreign_globals(path)
    if forbidden:
        return (
            f"refused: unpickling it would call {printable(forbidden[0])}, which can run code and "
            "which plain weights never need; get a file that holds tensors only, as "
            "torch.save(model.state_dict(), FILE) writes"
        )
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "damaged or hostile: it asks for more memory than its size allows"
    shown = printable(text.splitlines()[0]) if text else ""
    return f"damaged, truncated, or not {ACCEPTED} ({type(error).__name__}: {shown})"


def _foreign_globals(path: Path) -> list[str]:
    """What the pickles in a file would import from outside torch; found without running them.

    torch's unpickler knows the opcodes of protocol 2 only and names no global of a later one.
    """
    found: list[str] = []
    strings: list[str] = []
    try:
        with _open_pickle(path) as stream:
            while True:  # the old format is a row of pickles; its storages end the loop
                for opcode, argument, _ in pickletools.genops(stream):
                    if opcode.name == "STACK_GLOBAL":
                        found.append(".".join(strings[-2:]))
                    elif opcode.name in ("GLOBAL", "INST"):
                        found.append(str(argument).replace(" ", "."))
                    elif isinstance(argument, str):
                        strings.append(argument)
    except Exception:  # damaged: what was found so far is all there is to say
        pass
    return [name for name in found if not name.startswith(("torch.", "collections."))]


def _open_pickle(path: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
        return io.BytesIO(archive.read(name))
