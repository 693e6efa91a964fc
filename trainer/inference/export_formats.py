"""A net in the formats of other programs: to bytes, and from these back to a function.

The graphs, torch.export's and ONNX, are the bare net in eval mode: pictures that are normalised
and have the size that it sees go in, logits come out. They are float32 on the CPU, and the number
of pictures is free. What has to be known besides, the description, lies in them as JSON.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainer.errors import TrainingError, UserError
from trainer.text.printable import printable

TOLERANCE = 1e-5  # of the largest logit
BATCH_SIZES = (1, 5)
DESCRIPTION = "description.json"  # its name among the extra files of a .pt2
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights: a protobuf message ends at 2 GiB, graph included

Forward = Callable[[Tensor], Tensor]
"""Normalised pictures, (N, C, H, W) float32 on the CPU -> logits, (N, K) float64 on the CPU."""


def forward_of(model: nn.Module) -> Forward:
    """A net, wherever it is and whatever its dtype. On GPUs without TF32, whose products keep
    only 10 bits."""
    like = next(model.parameters())

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            logits: Tensor = model(images.to(like.device, like.dtype))
        return logits.cpu().double()

    return forward


def state_dict_bytes(state_dict: Mapping[str, Tensor]) -> bytes:
    """Tensors alone, each contiguous and with memory of its own."""
    buffer = io.BytesIO()
    contiguous = torch.contiguous_format
    torch.save({k: v.clone(memory_format=contiguous) for k, v in state_dict.items()}, buffer)
    return buffer.getvalue()


def read_state_dict(content: bytes) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True)
    return tensors


def graph(format: str, model: nn.Module, description: Mapping[str, Any]) -> tuple[bytes, Forward]:
    """The net as a file of `pt2` or `onnx`, and that file loaded again.

    Raises:
        UserError: its weights are too many for the format.
        TrainingError: torch finds no graph for it, or none of any batch size.
    """
    to_bytes, from_bytes = FORMATS[format]
    try:
        with quiet():
            program = to_program(model, pictures(2, description))
            content = to_bytes(program, description)
            return content, from_bytes(content)
    except UserError:
        raise
    except Exception as error:  # what the exporters raise has no common base
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"This net cannot be exported as {format}: {first_line}\n"
            "--format state_dict takes any net."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the exporters say is for their authors; what comes out is verified."""
    logging.disable(logging.ERROR)
    unheard = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(unheard),
            contextlib.redirect_stderr(unheard),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def to_program(model: nn.Module, example: Tensor) -> ExportedProgram:
    """The net's operations on any number of pictures; the example has two, for one or none would
    be taken for a constant."""
    plain = copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    program = torch.export.export(plain, (example,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def pt2_bytes(program: ExportedProgram, description: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DESCRIPTION: json.dumps(description)})
    return buffer.getvalue()


def open_pt2(content: bytes) -> Forward:
    return forward_of(torch.export.load(io.BytesIO(content)).module())


def onnx_bytes(program: ExportedProgram, description: Mapping[str, Any]) -> bytes:
    num_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if num_bytes > ONNX_LIMIT:
        raise UserError(
            f"--format onnx: one file holds 2.1 GB, and these weights have {num_bytes / 1e9:.1f} "
            "GB. --format pt2 takes them."
        )
    made = torch.onnx.export(
        program, dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},),
        input_names=["images"], output_names=["logits"],
    )  # fmt: skip
    assert made is not None
    for key, value in description.items():
        text = value if isinstance(value, str) else json.dumps(value)
        made.model.metadata_props[key] = printable(text)
    content: bytes = made.model_proto.SerializeToString()
    return content


def open_onnx(content: bytes) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])

    def forward(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits).double()

    return forward


FORMATS = {"pt2": (pt2_bytes, open_pt2), "onnx": (onnx_bytes, open_onnx)}


def largest_difference(net: Forward, loaded: Forward, description: Mapping[str, Any]) -> float:
    """Between their logits on random pictures, as a part of the largest logit, over BATCH_SIZES;
    NaN if the loaded one computes NaN. Raises TrainingError if the net itself does."""
    worst = []
    for num in BATCH_SIZES:
        images = pictures(num, description)
        expected, found = net(images), loaded(images)
        if not expected.isfinite().all():
            raise TrainingError("The net's own logits are not finite: there is nothing to export.")
        largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        worst.append((found - expected).abs().max() / largest)
    return float(torch.stack(worst).max())  # NaN wins


def pictures(num: int, description: Mapping[str, Any]) -> Tensor:
    """Noise as the net sees pictures, the same at each call: (num, C, H, W) float32."""
    channels = description["shape"][0]
    generator = torch.Generator().manual_seed(num)
    pixels = torch.rand(num, channels, *description["input_size"], generator=generator)
    mean, std = (torch.tensor(description[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels - mean) / std
