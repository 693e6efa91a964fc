"""Checkpoints of small nets, and the files of other programs opened as those programs do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.commands import Finished
from trainer import checkpoints
from trainer.builders import networks, pretrained
from trainer.inference import import_weights

Dispatch = Callable[..., Finished]
Loaded = Callable[[Tensor], Tensor]

NUM_CLASSES = 42
CLASSES = [f"class {i}" for i in range(NUM_CLASSES)]


def make_checkpoint(path: Path, name: str, shape: tuple[int, int, int], **run: str) -> nn.Module:
    """A net with random weights, its batch norms' statistics measured, as a checkpoint; `run` is
    what the configuration in it says of the run. Returns the net."""
    torch.manual_seed(0)
    sizes = {"data.shape": str(list(shape)), "data.num_classes": str(NUM_CLASSES)}
    config, told = import_weights.compose(name, sizes)
    model = networks.make_model(config, shape, NUM_CLASSES)
    with torch.no_grad():
        model.train()(torch.randn(8, shape[0], *networks.input_size(model, shape)))
    mean, std = ([0.4, 0.5, 0.6][: shape[0]], [0.2, 0.3, 0.25][: shape[0]])
    start = pretrained.Start(model.state_dict(), mean=tuple(mean), std=tuple(std))
    entries = import_weights.describe({**config, **run}, start, model.state_dict(), told)
    if run.get("precision") == "fp64":
        entries["model"] = {name: tensor.double() for name, tensor in entries["model"].items()}
    checkpoints.write(path, {**entries, "classes": CLASSES})
    return model.eval()


def noise(net: nn.Module, num: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(num, shape[0], *networks.input_size(net, shape))


def load_onnx(path: Path) -> tuple[Loaded, dict[str, Any]]:
    """With onnxruntime, and the description in its metadata."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    texts = ("input", "output", "fit", "probabilities")
    description = {k: v if k in texts else json.loads(v) for k, v in metadata.items()}

    def forward(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return forward, description


def load_pt2(path: Path) -> tuple[Loaded, dict[str, Any]]:
    files = {"description.json": ""}
    program = torch.export.load(path, extra_files=files)
    return program.module(), json.loads(files["description.json"])


LOAD = {"onnx": load_onnx, "pt2": load_pt2}


@torch.no_grad()
def check_agreement(loaded: Loaded, net: nn.Module, shape: tuple[int, int, int]) -> None:
    for num in (1, 5):
        images = noise(net, num, shape)
        expected, found = net(images), loaded(images)
        assert expected.isfinite().all()
        assert found.shape == (num, NUM_CLASSES)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
