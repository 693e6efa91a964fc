"""Whether the numbers of a training are numbers: what holds NaN or infinity is never written to
disk as a state, and never gone on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import TrainingError
from trainer.guard import Stepper

MOST_NAMES = 4  # in a message
SMALLER_STEPS = (
    "Try a smaller optimizer.lr, a warm-up (scheduler.warmup_steps=500) or clip_grad_norm=1."
)


class Soundness:
    """Looks whether what a training computes is finite, where a sync is due anyway.

    Attributes:
        since: the step after which weights and optimizer were last seen to be finite.
    """

    def __init__(self, model: nn.Module, stepper: Stepper) -> None:
        self.model, self.stepper = model, stepper
        self.since = 0

    def check_steps(self, step: int, where: str) -> None:
        """Raises TrainingError if a loss or gradient was not finite up to `step`. A sync.

        Args:
            where: epoch and learning rate, for the message.
        """
        bad = self.stepper.num_skipped_steps()
        if not bad:
            return
        # A finite gradient can still take a weight beyond its range, which the next loss tells.
        # Buffers are not asked: a batch norm has seen the bad batch before its loss is known.
        weights = dict(self.model.named_parameters())
        entries = {"model": weights, "optimizer": self.stepper.optimizer.state_dict()}
        self.refuse(entries, step - bad, where)
        raise TrainingError(
            f"The loss or a gradient became NaN or infinite at step {step - bad + 1} ({where}). "
            f"The weights were not updated; they are those of step {step - bad}.\n{SMALLER_STEPS}"
        )

    def checked(self, entries: dict[str, Any], step: int, where: str) -> dict[str, Any]:
        """The same, as they are after `step`. Raises TrainingError if a weight, a statistic or what
        the optimizer keeps is NaN or infinite. A sync."""
        self.refuse(entries, step, where)
        self.since = step
        return entries

    def refuse(self, entries: dict[str, Any], step: int, where: str) -> None:
        if names := not_finite(entries):
            raise TrainingError(overflow(names, self.since, step, where))


def not_finite(entries: Any) -> list[str]:
    """Dotted names of the tensors in a nest of dicts and lists that hold a NaN or an infinity.

    One reduction per tensor, its largest absolute value, which NaN and infinity survive; and one
    sync per device, so it is called where a state is saved and never after a mere step.
    """
    groups: dict[torch.device, list[tuple[str, Tensor]]] = {}
    for name, tensor in floats_in(entries):
        groups.setdefault(tensor.device, []).append((name, tensor))
    found = set()
    for named in groups.values():
        largest = [torch.linalg.vector_norm(plain(tensor), torch.inf) for _, tensor in named]
        are_finite = torch.stack([norm.isfinite() for norm in largest]).tolist()  # the sync
        found |= {name for (name, _), fine in zip(named, are_finite, strict=True) if not fine}
    return [name for name, _ in floats_in(entries) if name in found]


def floats_in(entries: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of all floating-point and complex tensors that are not empty."""
    if isinstance(entries, Tensor):
        if (entries.is_floating_point() or entries.is_complex()) and entries.numel():
            yield prefix, entries.detach()
        return
    items: Any = ()
    if isinstance(entries, Mapping):
        items = entries.items()
    elif isinstance(entries, list | tuple):
        items = enumerate(entries)
    for key, value in items:
        yield from floats_in(value, f"{prefix}.{key}" if prefix else str(key))


def plain(tensor: Tensor) -> Tensor:
    """In a dtype that has norms on every device: those of eight bits have none."""
    return tensor if tensor.itemsize > 1 else tensor.float()


def listed(names: list[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def overflow(names: list[str], since: int, step: int, where: str) -> str:
    """What is to be said of tensors of these names that are not finite after `step` steps, and
    were after `since`: an update with a finite loss and finite gradients did it."""
    when = f"step {step}" if since + 1 >= step else f"one of the steps {since + 1} to {step}"
    if step == 0:
        when = "the start, before any step"
    names = [name.removeprefix("model.") for name in names]
    return (
        f"Weights, or what is kept beside them, became NaN or infinite at {when} ({where}), though "
        f"loss and gradients were finite: {listed(names)}.\nNo checkpoint holds them; what was "
        f"saved before is sound. {SMALLER_STEPS}"
    )
