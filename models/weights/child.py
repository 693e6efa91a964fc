"""The process in which other people's files are parsed. Run by its path, not as a module:

    python child.py KIND FILE FOLDER MEMORY_BYTES CPU_S

Its package would import torch first (two seconds), which .mat files do not need. Arrays go to
FOLDER/<i>.npy, all else to FOLDER/report.json: `{"error": ...}`, or what `sandbox.parsed` hands on.
scipy and torch are written in C and not hardened against hostile files; whatever they do here, the
parent sees a report or a dead process.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # this folder would come first; its modules must shadow nothing
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

try:
    import resource
except ImportError:  # Windows: the parent's timeout is the only limit
    resource = None  # type: ignore[assignment]


NO_ROOM = 74  # exit code: not even the report could be written


class RefusedError(Exception):
    """The file cannot be used; the message says why."""


class Folder:
    """Folder through which arrays go to the parent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def put(self, array: np.ndarray) -> int:
        """Save an array; its number is the file's name."""
        file = self.path / f"{self.count}.npy"
        try:
            np.save(file, array, allow_pickle=False)
        except OSError as error:
            file.unlink(missing_ok=True)  # makes room for the report
            raise RefusedError(
                f"no room to unpack it in {self.path.parent}; set TMPDIR to a larger folder "
                f"({error})"
            ) from error
        self.count += 1
        return self.count - 1


def limit(memory_bytes: int, cpu_s: int) -> None:
    """Take at most so much more memory, address space counted, and CPU time; leave no core file.

    Called after the imports, whose libraries map gigabytes that nobody uses.
    """
    if resource is None:
        return
    wanted = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: cpu_s}
    statm = Path("/proc/self/statm")
    if statm.exists():  # elsewhere address space cannot be read, and macOS does not limit it
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        wanted[resource.RLIMIT_AS] = mapped + memory_bytes
    for what, value in wanted.items():
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the soft limit on CPU time comes SIGXCPU, which tells more than the hard one's SIGKILL.
        ceiling = hard if what == resource.RLIMIT_CPU else value
        resource.setrlimit(what, (value, ceiling))


def main(kind: str, file: str, folder: str, memory_bytes: str, cpu_s: str) -> None:
    out = Folder(Path(folder))
    try:
        read = READERS[kind]()
        limit(int(memory_bytes), int(cpu_s))
        report = read(Path(file), out)
    except MemoryError:
        report = {"error": "damaged or hostile: it asks for more memory than its size allows"}
    except RefusedError as error:
        report = {"error": str(error)}
    except Exception as error:  # damaged files reach every kind of exception
        first_line = (str(error).splitlines() or [""])[0][:200]
        report = {"error": f"damaged or hostile ({type(error).__name__}: {first_line})"}
    try:
        (out.path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    except OSError:
        sys.exit(NO_ROOM)


def torch_reader() -> Any:
    from models.weights.foreign import WeightsError
    from models.weights.state_dicts import flatten

    def read(path: Path, out: Folder) -> dict[str, Any]:
        try:
            tensors, notes = flatten(path)
        except WeightsError as error:
            return {"error": str(error).removeprefix(f"{path}: ")}
        return {"notes": notes, "tensors": {k: out.put(v()) for k, v in tensors.items()}}

    return read


def mat_reader() -> Any:
    try:
        from scipy.io import matlab
    except ImportError as error:
        raise RefusedError(
            f".mat files need SciPy: pip install 'trainer[matlab]' ({error})"
        ) from error

    def read(path: Path, out: Folder) -> dict[str, Any]:
        names = [name for name, _, _ in matlab.whosmat(path)]
        if "layers" not in names or "params" in names:
            what = "a DagNN network of MatConvNet" if "params" in names else "no SimpleNN network"
            raise RefusedError(
                f"this is {what}; read are those with a variable `layers`, as imagenet-vgg-* have "
                f"it. It holds {', '.join(name[:200] for name in names[:10]) or 'nothing'}"
            )
        wanted = ["layers", "meta", "normalization", "classes"]
        with warnings.catch_warnings():
            # mat_dtype: MATLAB stores arrays of small whole numbers (zero biases) as uint8. But it
            # also drops imaginary parts, with no more than a warning.
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            return simplenn(matlab.loadmat(path, mat_dtype=True, variable_names=wanted), out)

    return read


def simplenn(mat: dict[str, Any], out: Folder) -> dict[str, Any]:
    """Content of a SimpleNN file, fields found by name; new files keep all but layers in `meta`."""
    layers = mat["layers"]
    if type(layers) is not np.ndarray or layers.dtype != object or not layers.size:
        raise RefusedError("`layers` is not a cell array of layers")
    meta = mat.get("meta")
    normalization = first(field(meta, "normalization"), mat.get("normalization"))
    classes = first(field(meta, "classes"), mat.get("classes"))
    average = field(normalization, "averageImage")
    return {
        "layers": [layer(x, f"layer {i}", out) for i, x in enumerate(layers.flat, 1)],
        "classes": first(*(texts(field(classes, name)) for name in ("description", "name"))),
        "average": put_numeric(average, "averageImage", out),
        "image_size": numbers(field(normalization, "imageSize")),
        "border": numbers(field(normalization, "border")),
        "crop_size": numbers(field(normalization, "cropSize")),
        "keep_aspect": numbers(field(normalization, "keepAspect")),
    }


def layer(struct: Any, number: str, out: Folder) -> dict[str, Any]:
    """Type, name and arrays of a layer, new layout (`weights`) or old (`filters`, `biases`)."""
    kind, name = text(field(struct, "type")), text(field(struct, "name")) or number
    if not kind:
        raise RefusedError(f"{name} has no `type`")
    cell = field(struct, "weights")
    if type(cell) is np.ndarray and cell.dtype == object:
        arrays = list(cell.flat)
    else:
        arrays = [field(struct, "filters"), field(struct, "biases")]
    arrays = [a for a in arrays if a is not None and np.size(a)]
    return {"type": kind, "name": name, "arrays": [put_numeric(a, name, out) for a in arrays]}


def field(struct: Any, name: str) -> Any:
    """A field of a 1x1 struct; None if there is no such thing (objects and functions have none)."""
    if type(struct) is not np.ndarray or struct.size != 1 or name not in (struct.dtype.names or ()):
        return None
    return struct[name].flat[0]


def first(*values: Any) -> Any:
    return next((value for value in values if value is not None and len(value)), None)


def put_numeric(array: Any, name: str, out: Folder) -> int | None:
    if array is None:
        return None
    if type(array) is not np.ndarray or array.dtype not in (np.float32, np.float64):
        kind = getattr(array, "dtype", type(array).__name__)
        raise RefusedError(f"{name}: its numbers are {str(kind)[:200]}, not single or double")
    return out.put(array)


def numbers(array: Any) -> list[float] | None:
    if type(array) is not np.ndarray or array.dtype.kind not in "buif" or array.size > 16:
        return None
    return [float(value) for value in array.flat]


def texts(cell: Any) -> list[str] | None:
    if type(cell) is not np.ndarray or cell.dtype != object or not cell.size:
        return None
    names = [text(value) for value in cell.flat]
    return names if all(names) else None


def text(array: Any) -> str:
    if type(array) is not np.ndarray or array.dtype.kind != "U" or array.size != 1:
        return ""
    return str(array.flat[0])[:200]  # whoever prints it cleans it


READERS = {"mat": mat_reader, "torch": torch_reader}

if __name__ == "__main__":
    main(*sys.argv[1:])
