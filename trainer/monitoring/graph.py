"""The graph of a network for TensorBoard, taken down from one forward pass.

SummaryWriter.add_graph would trace with torch.jit, which is deprecated, three times over: a second
for a ResNet-18. Watching torch's dispatcher costs one forward pass of one image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.system.torch_internals import DispatchMode, tree_leaves


class Node(NamedTuple):
    """An operation, or a tensor that was there before: what made its inputs, and its output."""

    name: str
    op: str
    inputs: list[str]
    shape: torch.Size


def graph_nodes(model: nn.Module, image: Tensor) -> list[Node]:
    """The graph of `model` in evaluation mode.

    Neither the weights and buffers nor the modes of the modules change.

    Args:
        image: (1, C, H, W) float, as the model takes it.
    """
    paths = {name: scope_of(model, name) for name, _ in model.named_modules()}
    scopes = [paths[""]]
    recorder = Recorder(scopes)
    recorder.note("input", "input", [], image)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        module, _, own = name.rpartition(".")
        recorder.note(f"{paths[module]}/{own}", "parameter", [], tensor)
    with in_eval_mode(model), following(model, paths, scopes), torch.no_grad():
        with recorder:
            # Not model(image): that would be the compiled form, where there is one.
            output = model.forward(image)
        for i, tensor in enumerate(t for t in tree_leaves(output) if isinstance(t, Tensor)):
            recorder.note(f"output/{i}" if i else "output", "output", [tensor], tensor)
    return recorder.nodes


class Recorder(DispatchMode):
    """Notes each operation as a node under the module that runs, with edges from the nodes that
    made its inputs."""

    def __init__(self, scopes: list[str]) -> None:
        super().__init__()
        self.scopes = scopes
        self.nodes: list[Node] = []
        self.names: set[str] = set()
        self.makers: dict[int, str] = {}  # id of a tensor -> the node that made it
        self.alive: list[Tensor] = []  # so that no id comes twice

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        op = str(func).split(".")[1]
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.note(f"{self.scopes[-1]}/{op}", op, inputs, tensor)
        return result

    def note(self, name: str, op: str, inputs: list[Tensor], output: Tensor) -> None:
        makers = [self.makers[id(t)] for t in inputs if id(t) in self.makers]
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.nodes.append(Node(unique, op, makers, output.shape))
        self.names.add(unique)
        self.makers[id(output)] = unique
        self.alive.append(output)


def scope_of(model: nn.Module, name: str) -> str:
    """Place of a module in TensorBoard: ResNet/Sequential[layer1]/BasicBlock[0] for layer1.0."""
    words = name.split(".") if name else []
    steps = [".".join(words[: i + 1]) for i in range(len(words))]
    labels = [
        f"{type(model.get_submodule(step)).__name__}[{step.split('.')[-1]}]" for step in steps
    ]
    return "/".join([type(model).__name__, *labels])


@contextlib.contextmanager
def following(model: nn.Module, paths: dict[str, str], scopes: list[str]) -> Iterator[None]:
    """Keeps the path of the module that runs as the last of `scopes`."""
    hooks = []
    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_pre_hook(_entering(scopes, paths[name])))
            hooks.append(module.register_forward_hook(_leaving(scopes), always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _entering(scopes: list[str], path: str) -> Any:
    return lambda module, inputs: scopes.append(path)


def _leaving(scopes: list[str]) -> Any:
    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        scopes.pop()

    return leave


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Each module gets its own mode back: a frozen batch norm has another than its model."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
