"""The state that a training goes on from: the newest that is sound, bears its own number and is of
this very training. Others are named, and set aside: they would count as the newest for ever."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import checkpoints
from trainer.checkpoints import entries
from trainer.checkpoints.finite import listed, not_finite
from trainer.config.changes import FREE_KEYS, differences
from trainer.config.plain_yaml import parse
from trainer.errors import UserError
from trainer.runs.side_files import UNREADABLE, kept, read_text
from trainer.text.values import format_value

log = logging.getLogger("trainer")

# Beside FREE_KEYS: what `resume` writes into the configuration of its states.
OWN_KEYS = ("epochs", "weights", "replace_head", "data.mean", "data.std")
MOST_SHOWN = 3  # keys in a message

Config = Mapping[str, Any]


def newest_sound_state(folder: Path) -> dict[str, Any]:
    """The state of the highest step that passes its digest; others are named on the way."""
    for path in reversed(checkpoints.states_in(folder / "checkpoints")):
        try:
            state = checked(path, folder)
        except UserError as error:
            is_of_disk = isinstance(error.__cause__, OSError)  # it may be sound tomorrow
            log.warning("%s%s", error, "" if is_of_disk else f" {kept(path)}")
            continue
        log.info("resuming from step %s of %s", f"{state['step']:,}", path)
        return state
    raise UserError(f"{folder}: no sound state in its checkpoints/ to go on from.")


def checked(path: Path, folder: Path) -> dict[str, Any]:
    """Raises UserError that tells why the training cannot go on from this one."""
    state = entries.read(path, state=True)
    if names := not_finite(state):  # as earlier versions saved it
        raise UserError(f"{path}: holds NaN or infinity in {listed(names)}.")
    if state["step"] != checkpoints.step_of(path):
        raise UserError(
            f"{path}: is the state of step {state['step']:,}, which its name contradicts."
        )
    if reason := what_is_foreign(path, state, folder):
        raise UserError(f"{path}: is of another training: {reason}.")
    return state


# --- whose state it is ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """What tells one training from another in a checkpoint.

    Attributes:
        shapes: of the weights, by name. These, the data and the optimizer's class are what not even
            --force can change, see `snapshot.check_same_run`.
        data: the fingerprint; None: as earlier versions took it, which a resume replaces.
        optimizer: its class; None in best.pth.
        config: {} if it cannot be read.
    """

    shapes: Mapping[str, Any]
    data: str | None
    optimizer: str | None
    config: Config

    def is_like(self, other: Traits) -> bool:
        pairs = ((self.data, other.data), (self.optimizer, other.optimizer))
        return self.shapes == other.shapes and all(
            a is None or b is None or a == b for a, b in pairs
        )


def traits(found: Mapping[str, Any]) -> Traits:
    data = found.get("data")
    return Traits(
        {name: tuple(tensor.shape) for name, tensor in found["model"].items()},
        data if data and ":" in data else None,
        found.get("optimizer_class"),
        config_in(found["config"]),
    )


def config_in(text: str) -> Config:
    try:
        return parse(text)
    except UNREADABLE:
        return {}


def what_is_foreign(path: Path, state: Mapping[str, Any], folder: Path) -> str | None:
    """Why a state is not of the run in whose folder it lies; None if it is, or nobody can tell.

    What the run began with is in .hydra/config.yaml. A state that differs from it may still be its
    own, since --force changes nearly every key. So the other checkpoints are asked: it is foreign
    if more of them, or those that are more like the beginning, are of another net, data or
    optimizer.
    """
    begun, own = begun_with(folder), traits(state)
    changed = unlike(begun, own.config)
    if begun and own.config and not changed:
        return None
    others = list(traits_beside(path))
    camp = [own, *(other for other in others if other.is_like(own))]
    strangers = [other for other in others if not other.is_like(own)]
    if strangers:
        camps = ([o for o in others if o.is_like(stranger)] for stranger in strangers)
        is_foreign = max(rank(begun, members) for members in camps) > rank(begun, camp)
    else:
        is_foreign = len(camp) == 1 and bool(begun and own.config) and not began_as(begun, own)
    if not is_foreign:
        return None
    shown = sorted(changed, key=lambda change: not change[0].endswith("_target_"))[:MOST_SHOWN]
    if not begun or not shown:
        return "most checkpoints beside it are of another net, optimizer or data"
    return ", ".join(
        f"{k} is {format_value(new)}, not {format_value(old)}" for k, old, new in shown
    )


def traits_beside(path: Path) -> Iterator[Traits]:
    """Of the other checkpoints, one in memory at a time."""
    for other in (*checkpoints.states_in(path.parent), path.with_name("best.pth")):
        if other == path:
            continue
        try:
            found = entries.read(other)
        except UserError:
            continue
        # A copy under a wrong name has no say.
        if other.name == "best.pth" or found["step"] == checkpoints.step_of(other):
            yield traits(found)


def rank(begun: Config, members: Sequence[Traits]) -> tuple[bool, int, int]:
    """How much speaks for a group of checkpoints as the run's own; more is better."""
    least = min(len(unlike(begun, member.config)) for member in members)
    return any(began_as(begun, member) for member in members), len(members), -least


def began_as(begun: Config, member: Traits) -> bool:
    """Whether the kinds of net and of data are those of the run's beginning."""
    return bool(begun) and all(
        target(begun, group) == target(member.config, group) for group in ("model", "data")
    )


def target(config: Config, group: str) -> Any:
    options = config.get(group)
    return options.get("_target_") if isinstance(options, Mapping) else None


def begun_with(folder: Path) -> Config:
    """The configuration as Hydra noted it, with interpolations in it; {} if it cannot be read."""
    try:
        return parse(read_text(folder / ".hydra" / "config.yaml"))
    except UNREADABLE:
        return {}


def unlike(begun: Config, config: Config) -> list[tuple[str, Any, Any]]:
    """In what a state's configuration differs from the beginning, if that is known, but for what
    any resume may change."""
    return (
        []
        if not begun
        else [
            (key, old, new)
            for key, old, new in differences(begun, config)
            if key not in (*FREE_KEYS, *OWN_KEYS)
            and not key.startswith("data.file_md5")
            and not (isinstance(old, str) and "${" in old)
        ]
    )
