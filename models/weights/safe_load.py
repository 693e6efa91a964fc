"""The one way in which this package calls torch.load."""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from models import torch_internals
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
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(path)):
            warnings.simplefilter("ignore")  # old files use deprecated storage classes
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # damaged files reach every kind of exception
        raise WeightsError(f"{path}: {_reason(path, error)}") from error


class StandIn:
    """Placeholder for objects that a trainer saved beside the weights, such as its arguments: it
    accepts and ignores any arguments."""

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def _stand_in_dict(*_: Any) -> dict[Any, Any]:
    return {}


# Of these a file of weights has no use. Nothing in it would be run either way, but a file that
# names them was made to run something, and the user should hear of it.
_RUNS_CODE = (
    "builtins", "os", "posix", "nt", "sys", "subprocess", "importlib", "runpy",
    "pickle", "_pickle", "marshal", "shutil", "socket", "ctypes", "code", "codeop", "pty",
    "commands", "webbrowser", "timeit", "operator", "types", "asyncio", "multiprocessing",
)  # fmt: skip
# But for these, which are data.
_DATA = ("set", "frozenset", "complex", "slice", "range", "list", "dict", "tuple", "int", "float",
         "str", "bool", "bytes", "bytearray", "object", "SimpleNamespace")  # fmt: skip


# Pickles of protocol 2, which torch.save writes, have the names of Python 2; torch looks up these.
_NAMES_TODAY = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _runs_code(name: str) -> bool:
    module, _, own = name.rpartition(".")
    is_data = module in ("builtins", "types") and own in _DATA
    return name.partition(".")[0] in _RUNS_CODE and not is_data


def _stand_ins(path: Path) -> list[Any]:
    """For torch's restricted unpickler: a class of ours for each name in the file that is not
    torch's. It looks these up by name and imports nothing, so that `argparse.Namespace`, a
    configuration or a callback can lie beside the weights. What is not listed here stays refused.
    """
    return [
        (_stand_in_dict if name == "collections.defaultdict" else StandIn, name)
        for name in {*foreign_globals(path)}
        if not _runs_code(name)
    ]


def _reason(path: Path, error: Exception) -> str:
    """torch's own message advises weights_only=False; its cause, kept in __context__, does not."""
    if str(error).startswith(torch_internals.ADVICE) and error.__context__ is not None:
        error = error.__context__  # type: ignore[assignment]
    text = str(error)
    told = torch_internals.refused_global(text)
    foreign = foreign_globals(path)
    forbidden = [told] if told else list(filter(_runs_code, foreign))
    if forbidden:
        return (
            f"refused: unpickling it would call {printable(forbidden[0])}, which can run code and "
            "which plain weights never need; get a file that holds tensors only, as "
            "torch.save(model.state_dict(), FILE) writes"
        )
    if torch_internals.UNKNOWN_OPCODE in text and foreign:  # of a later protocol than torch writes
        return (
            "pickled in a form that torch's safe reader does not take; where you trust it: "
            "torch.save(torch.load(FILE, weights_only=False), NEW_FILE)"
        )
    if isinstance(error, MemoryError) or torch_internals.NO_MEMORY in text:
        return "damaged or hostile: it asks for more memory than its size allows"
    shown = printable(text.splitlines()[0]) if text else ""
    return f"damaged, truncated, or not {ACCEPTED} ({type(error).__name__}: {shown})"


_TORCH_KNOWS = ("collections.OrderedDict", "collections.Counter", "_codecs.encode")


def foreign_globals(path: Path) -> list[str]:
    """Names that the pickles in a file would import from outside torch, found without running them.

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
                        module, _, own = str(argument).partition(" ")
                        found.append(f"{_NAMES_TODAY.get(module, module)}.{own}")
                    elif isinstance(argument, str):
                        strings.append(argument)
    except Exception:  # damaged: what was found so far is all there is to say
        pass
    return [name for name in found if not name.startswith("torch.") and name not in _TORCH_KNOWS]


def _open_pickle(path: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl")
        return io.BytesIO(archive.read(name))
