"""Formats of other programs for a model: to bytes, and from these back to weights or a function.

The graphs, torch.export's and ONNX, are the bare model in eval mode: normalised images of the size
that it sees go in, logits come out. They are float32 on the CPU, and the number of images is free.
What has to be known besides, the description, lies in them as JSON, as it does in safetensors.
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

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainer.errors import TrainingError, UserError
from trainer.text.printable import printable

TOLERANCE = 1e-5  # of the largest logit
BATCH_SIZES = (1, 5)
DESCRIPTION = "description.json"  # its name among the extra files of a .pt2
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights: a protobuf message ends at 2 GiB, graph included

# Normalised images, (N, C, H, W) float32 on the CPU -> logits, (N, K) float64 on the CPU.
Forward = Callable[[Tensor], Tensor]


def forward_of(model: nn.Module) -> Forward:
    """A model as a function, wherever it is and of any dtype. On GPUs without TF32, whose products
    keep only 10 bits."""
    like = next(model.parameters())

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            logits: Tensor = model(images.to(like.device, like.dtype))
        return logits.cpu().double()

    return forward


def contiguous(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors on the CPU, each contiguous and with memory of its own."""
    return {k: v.cpu().clone(memory_format=torch.contiguous_format) for k, v in state_dict.items()}


def state_dict_bytes(state_dict: Mapping[str, Tensor], _: Mapping[str, Any]) -> bytes:
    """Tensors alone: torch.load's `weights_only` takes nothing else without questions."""
    buffer = io.BytesIO()
    torch.save(contiguous(state_dict), buffer)
    return buffer.getvalue()


def read_state_dict(content: bytes) -> dict[str, Tensor]:
    return torch.load(io.BytesIO(content), weights_only=True)


def safetensors_bytes(state_dict: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    """Tensors, and the description as JSON under one name of the metadata: of several the library
    writes the order by chance, and the bytes are to be the same each time."""
    metadata = {"description": json.dumps(description)}
    return safetensors.torch.save(contiguous(state_dict), metadata)


WEIGHTS = {
    "state_dict": (state_dict_bytes, read_state_dict),
    "safetensors": (safetensors_bytes, safetensors.torch.load),
}


def graph(format: str, model: nn.Module, description: Mapping[str, Any]) -> tuple[bytes, Forward]:
    """The model as a file of `pt2` or `onnx`, and that file loaded again.

    Raises:
        UserError: its weights are too many for the format.
        TrainingError: torch finds no graph for it, or none of any batch size.
    """
    to_bytes, from_bytes = FORMATS[format]
    try:
        with quiet():
            program = to_program(model, example_images(2, description))
            content = to_bytes(program, description)
            return content, from_bytes(content)
    except UserError:
        raise
    except Exception as error:  # what the exporters raise has no common base
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"This model cannot be exported as {format}: {first_line}\n"
            "--format state_dict and safetensors take any model."
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence: the exporters' messages are for their authors; what comes out is verified."""
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
    """The model's operations on any number of images; the example has two, for one or none would
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
    return made.model_proto.SerializeToString()


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


def largest_difference(model: Forward, loaded: Forward, description: Mapping[str, Any]) -> float:
    """Difference of their logits on random images, as a part of the largest logit, over
    BATCH_SIZES; NaN if the loaded one computes NaN. Raises TrainingError if the model does so."""
    worst = []
    for num in BATCH_SIZES:
        images = example_images(num, description)
        expected, found = model(images), loaded(images)
        if not expected.isfinite().all():
            raise TrainingError(
                "The model's own logits are not finite: there is nothing to export."
            )
        largest = expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
        worst.append((found - expected).abs().max() / largest)
    return float(torch.stack(worst).max())  # NaN wins


def example_images(num: int, description: Mapping[str, Any]) -> Tensor:
    """Noise as the model sees images, the same at each call: (num, C, H, W) float32."""
    channels = description["shape"][0]
    generator = torch.Generator().manual_seed(num)
    pixels = torch.rand(num, channels, *description["input_size"], generator=generator)
    mean, std = (torch.tensor(description[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels - mean) / std
