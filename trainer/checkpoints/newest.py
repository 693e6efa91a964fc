"""State that a run resumes from: the newest one that is intact, has the step of its file name and
belongs to the run. Others are reported and renamed, so that they no longer count as the newest."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import checkpoints
from trainer.checkpoints import entries
from trainer.checkpoints.finite import not_finite
from trainer.config.changes import LIMITS, differences, is_free
from trainer.config.plain_yaml import parse
from trainer.errors import UserError
from trainer.runs.side_files import kept, read_text, readable
from trainer.text.values import format_value, listed

log = logging.getLogger("trainer")

# Besides FREE_KEYS: keys that `resume` changes in the configuration of its states.
OWN_KEYS = (*LIMITS, "weights", "replace_head", "data.mean", "data.std")
MOST_SHOWN = 3  # keys in a message

Config = Mapping[str, Any]


def newest_sound_state(folder: Path) -> dict[str, Any]:
    """Intact state of the highest step in a run's folder. Damaged and foreign ones are logged and
    renamed. Raises UserError if there is none."""
    for path in reversed(checkpoints.states_in(folder / "checkpoints")):
        try:
            state = checked(path, folder)
        except UserError as error:
            is_of_disk = isinstance(error.__cause__, OSError)  # the file itself may be intact
            log.warning("%s%s", error, "" if is_of_disk else f" {kept(path)}")
            continue
        log.info("resuming from step %s of %s", f"{state['step']:,}", path)
        return state
    raise UserError(f"{folder}: no intact state in its checkpoints/ to resume from.")


def checked(path: Path, folder: Path) -> dict[str, Any]:
    """Read a state of the run in `folder`. Raises UserError with the reason if the run cannot
    resume from it."""
    state = entries.read(path, state=True)
    if names := not_finite(state):  # earlier versions saved such states
        raise UserError(f"{path}: holds NaN or infinity in {listed(names)}.")
    if state["step"] != checkpoints.step_of(path):
        raise UserError(
            f"{path}: is the state of step {state['step']:,}, which contradicts its name."
        )
    if reason := what_is_foreign(path, state, folder):
        raise UserError(f"{path}: is of another run: {reason}.")
    return state


# --- the run that a state belongs to -------------------------------------------------------------


@dataclass(frozen=True)
class Traits:
    """Properties of a checkpoint by which runs are told apart.

    Attributes:
        shapes: of the weights, by name. Not even --force can change these, the data and the
            optimizer's class, see `snapshot.load`.
        data: fingerprint of the dataset; None for one of earlier versions, which a resume replaces.
        optimizer: name of its class; None in best.pth.
        config: the configuration; {} if it cannot be read.
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
        readable({}, parse, found["config"]),
    )


def what_is_foreign(path: Path, state: Mapping[str, Any], folder: Path) -> str | None:
    """Reason why a state does not belong to the run in whose folder it lies; None if it does, or if
    this cannot be decided.

    The run's first configuration is in .hydra/config.yaml. A state may differ from it and still
    belong to the run, since --force can change nearly every key. So it is compared with the other
    checkpoints: it is foreign if a larger group of them, or one closer to the first configuration,
    has another model, dataset or optimizer.
    """
    # As Hydra wrote it, with interpolations.
    begun = readable({}, parse, readable("", read_text, folder / ".hydra" / "config.yaml"))
    own = traits(state)
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
        return "most checkpoints beside it have another model, optimizer or dataset"
    return ", ".join(
        f"{k} is {format_value(new)}, not {format_value(old)}" for k, old, new in shown
    )


def traits_beside(path: Path) -> Iterator[Traits]:
    """Traits of the other checkpoints in the folder, with one file in memory at a time."""
    for other in (*checkpoints.states_in(path.parent), path.with_name("best.pth")):
        if other == path:
            continue
        try:
            found = entries.read(other)
        except UserError:
            continue
        # A copy under a wrong name does not count.
        if other.name == "best.pth" or found["step"] == checkpoints.step_of(other):
            yield traits(found)


def rank(begun: Config, members: Sequence[Traits]) -> tuple[bool, int, int]:
    """Sort key of a group of checkpoints: the highest is the run's own."""
    least = min(len(unlike(begun, member.config)) for member in members)
    return any(began_as(begun, member) for member in members), len(members), -least


def began_as(begun: Config, member: Traits) -> bool:
    """True if model and dataset are of the same class as in the run's first configuration."""
    return bool(begun) and all(
        target(begun, group) == target(member.config, group) for group in ("model", "data")
    )


def target(config: Config, group: str) -> Any:
    options = config.get(group)
    return options.get("_target_") if isinstance(options, Mapping) else None


def unlike(begun: Config, config: Config) -> list[tuple[str, Any, Any]]:
    """Differences (key, old, new) of a state's configuration from the first one, except for keys
    that any resume may change; empty if `begun` is."""
    return [
        (key, old, new)
        for key, old, new in (differences(begun, config) if begun else ())
        if not is_free(key) and key not in OWN_KEYS and not (isinstance(old, str) and "${" in old)
    ]
