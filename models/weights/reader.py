"""`read`: any weight file that this package understands, into tensors under PyTorch's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.weights.foreign import ForeignWeights, Shape, printable, refuse_nonfinite
from models.weights.formats import check_zip, kind_of
from models.weights.matconvnet import read_mat
from models.weights.safetensors_files import arrays_in
from models.weights.sandbox import parsed
from models.weights.state_dicts import without_prefixes
from models.weights.torchvision_files import describe, fetch, official, with_metadata


def read(
    path: str | Path, target_shapes: Mapping[str, Shape], *, arch: str | None = None
) -> ForeignWeights[Tensor]:
    """Weights of other people. Pickles and .mat files are parsed in a child process with limits.

    A file of torch.save or safetensors is read as it is, but for what stands before every name:
    hold it against the network with `compare`. A MatConvNet file has other names, so it is matched
    layer by layer here, and must fit.

    Args:
        path: a `.pth` of torch.save, a `.safetensors` or a MATLAB v5 `.mat` of MatConvNet, told by
            its content.
        target_shapes: name to shape of the network's state_dict, in its order.
        arch: torchvision's name of the network; with it, a torch.save file gets class names and
            preprocessing from the metadata of torchvision's own weights.

    Raises:
        WeightsError: the file is damaged, hostile, of another format, or does not fit.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "mat":
        return _with_tensors(read_mat(path, target_shapes))
    if kind == "zip":
        check_zip(path)  # in the child again; here it spares starting one
    foreign = _with_tensors(_read_state_dict(path, kind == "safetensors"))
    foreign = as_the_network_names_them(foreign, target_shapes)
    return foreign if arch is None else describe(foreign, path, arch, target_shapes)


def load_official(arch: str, name: str = "IMAGENET1K_V1") -> ForeignWeights[Tensor]:
    """torchvision's official weights, from torch hub's folder or downloaded into it.

    Raises:
        WeightsError: unknown names, no network, or a file that is not the published one.
    """
    info = official(arch, name)
    return with_metadata(read(fetch(info), {}), info)


def _with_tensors(foreign: ForeignWeights[np.ndarray]) -> ForeignWeights[Tensor]:
    """The same, each tensor in its array's memory."""
    tensors = {name: torch.from_numpy(array) for name, array in foreign.state_dict.items()}
    return replace(foreign, state_dict=tensors)  # type: ignore[arg-type, return-value]


def as_the_network_names_them(
    foreign: ForeignWeights[Tensor], target_shapes: Mapping[str, Shape]
) -> ForeignWeights[Tensor]:
    """Without what a trainer put before the names of its network's tensors, such as Lightning's
    `model.` or `net.`, where without it the names are the network's; what belongs to other things,
    such as a loss, is left out. Nothing changes if the names fit already, or never do."""
    names = foreign.state_dict.keys()
    if not target_shapes or names & target_shapes.keys():
        return foreign
    for prefix in sorted({name[: i + 1] for name in names for i in _dots(name)}, key=len):
        own = {n[len(prefix) :]: t for n, t in foreign.state_dict.items() if n.startswith(prefix)}
        # Most, not all: with another head, or a layer more, the comparison has better words.
        if 2 * len(own.keys() & target_shapes.keys()) > len(target_shapes):
            notes = [*foreign.notes, f"dropped the prefix {printable(prefix)!r}"]
            others = [printable(name) for name in names if not name.startswith(prefix)]
            if others:
                notes.append(f"left out {len(others)} tensors without it: {', '.join(others[:10])}")
            return replace(foreign, state_dict=own, notes=notes)
    return foreign


def _dots(name: str) -> list[int]:
    """Positions of the first three dots: no trainer nests deeper."""
    return [i for i, character in enumerate(name) if character == "."][:3]


def _read_state_dict(path: Path, is_safetensors: bool) -> ForeignWeights[np.ndarray]:
    notes: list[str] = []
    if is_safetensors:
        state = without_prefixes(arrays_in(path), notes)
    else:
        with parsed(path, "torch", path.stat().st_size) as (report, array):
            # A copy: the mapped file is gone after this block.
            state = {name: np.array(array(number)) for name, number in report["tensors"].items()}
        notes = report["notes"]
    state = without_empty_parts(state, notes)
    refuse_nonfinite(path, state)
    if _add_counters(state):
        notes.append("added batch norm's num_batches_tracked = 0, which old files lack")
    return ForeignWeights(state, notes=notes)


def without_empty_parts(state: dict[str, np.ndarray], notes: list[str]) -> dict[str, np.ndarray]:
    """Without the parts of a network in which every number is NaN, which is how torchvision
    publishes VGG-16 without a head (IMAGENET1K_FEATURES); what was left out is added to the notes.
    Nothing changes if that would leave nothing."""
    parts: dict[str, list[np.ndarray]] = {}
    for name, array in state.items():
        parts.setdefault(name.partition(".")[0], []).append(array)
    empty = {
        part for part, arrays in parts.items()
        if all(a.dtype.kind == "f" and a.size and np.isnan(a).all() for a in arrays)
    }  # fmt: skip
    if not empty or len(empty) == len(parts):
        return state
    named = ", ".join(printable(part) for part in sorted(empty))
    notes.append(f"left out what is NaN throughout: {named}")
    return {n: array for n, array in state.items() if n.partition(".")[0] not in empty}


def _add_counters(state: dict[str, np.ndarray]) -> int:
    """Files from before PyTorch 0.4.1 lack batch norm's counters; torch fills in zeros as well."""
    owners = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    added = {f"{owner}num_batches_tracked": np.array(0, dtype=np.int64) for owner in owners}
    added = {name: zero for name, zero in added.items() if name not in state}
    state.update(added)
    return len(added)
