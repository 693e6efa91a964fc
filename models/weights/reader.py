"""`read`: any weight file that this package understands, into tensors under PyTorch's names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.weights.foreign import ForeignWeights, Shape, WeightsError, printable
from models.weights.formats import check_zip, kind_of
from models.weights.matconvnet import convert
from models.weights.matfile import check_mat
from models.weights.sandbox import parsed
from models.weights.torchvision_files import describe, fetch, official, with_metadata

MAT_SLACK = 64 << 20  # average image, class names, fields nobody reads; bytes


def read(
    path: str | Path, target_shapes: Mapping[str, Shape], *, arch: str | None = None
) -> ForeignWeights:
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
        foreign = _read_mat(path, target_shapes)
    else:
        if kind == "zip":
            check_zip(path)  # in the child again; here it spares starting one
        foreign = _read_torch(path)
        if arch is not None:
            foreign = describe(foreign, path, arch)
    _refuse_nonfinite(path, foreign.state_dict)
    return foreign


def load_official(arch: str, name: str = "IMAGENET1K_V1") -> ForeignWeights:
    """torchvision's official weights, from torch hub's folder or downloaded into it.

    Raises:
        WeightsError: unknown names, no network, or a file that is not the published one.
    """
    info = official(arch, name)
    return with_metadata(read(fetch(info), {}), info)


def _read_mat(path: Path, target_shapes: Mapping[str, Shape]) -> ForeignWeights:
    # In doubles, and as much again for what a training leaves in the file (momentum).
    at_most = 16 * sum(math.prod(shape) for shape in target_shapes.values()) + MAT_SLACK
    num_bytes = check_mat(path, at_most)
    with parsed(path, "mat", num_bytes) as (report, array):
        try:
            return convert(report, array, target_shapes)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}") from error


def _read_torch(path: Path) -> ForeignWeights:
    with parsed(path, "torch", path.stat().st_size) as (report, array):
        # A copy: the mapped file is gone after this block.
        state = {
            name: torch.from_numpy(np.array(array(number)))
            for name, number in report["tensors"].items()
        }
    notes = report["notes"]
    if _add_counters(state):
        notes.append("added batch norm's num_batches_tracked = 0, which old files lack")
    return ForeignWeights(state, notes=notes)


def _add_counters(state: dict[str, Tensor]) -> int:
    """Files from before PyTorch 0.4.1 lack batch norm's counters; torch fills in zeros as well."""
    owners = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    added = {f"{owner}num_batches_tracked": torch.tensor(0) for owner in owners}
    added = {name: zero for name, zero in added.items() if name not in state}
    state.update(added)
    return len(added)


def _refuse_nonfinite(path: Path, state: Mapping[str, Tensor]) -> None:
    bad = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if bad:
        names = ", ".join(printable(name) for name in bad[:10])
        raise WeightsError(
            f"{path}: NaN, infinite or too large for float32 in {len(bad)} tensors: {names}"
        )
