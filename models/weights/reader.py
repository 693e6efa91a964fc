"""`read`: any weight file that this package understands, into tensors under PyTorch's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.weights.foreign import ForeignWeights, Shape, refuse_nonfinite
from models.weights.formats import check_zip, kind_of
from models.weights.matconvnet import read_mat
from models.weights.sandbox import parsed
from models.weights.torchvision_files import describe, fetch, official, with_metadata


def read(
    path: str | Path, target_shapes: Mapping[str, Shape], *, arch: str | None = None
) -> ForeignWeights[Tensor]:
    """Read a weight file of other people, in a child process with limits.

    A torch.save file is read as it is: hold it against the network with `compare`. A MatConvNet
    file has other names, so it is matched layer by layer here, and must fit.

    Args:
        path: a `.pth` of torch.save or a MATLAB v5 `.mat` of MatConvNet, told by its content.
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
    foreign = _with_tensors(_read_torch(path))
    return foreign if arch is None else describe(foreign, path, arch)


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


def _read_torch(path: Path) -> ForeignWeights[np.ndarray]:
    with parsed(path, "torch", path.stat().st_size) as (report, array):
        # A copy: the mapped file is gone after this block.
        state = {name: np.array(array(number)) for name, number in report["tensors"].items()}
    refuse_nonfinite(path, state)
    notes = report["notes"]
    if _add_counters(state):
        notes.append("added batch norm's num_batches_tracked = 0, which old files lack")
    return ForeignWeights(state, notes=notes)


def _add_counters(state: dict[str, np.ndarray]) -> int:
    """Files from before PyTorch 0.4.1 lack batch norm's counters; torch fills in zeros as well."""
    owners = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    added = {f"{owner}num_batches_tracked": np.array(0, dtype=np.int64) for owner in owners}
    added = {name: zero for name, zero in added.items() if name not in state}
    state.update(added)
    return len(added)
