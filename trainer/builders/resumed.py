"""Configuration and state of a resumed run: read from its folder, changed, checked."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.builders import idle_keys, restore, training_run
from trainer.checkpoints.newest import newest_sound_state
from trainer.config import stored
from trainer.config.changes import check_changes
from trainer.errors import UserError
from trainer.runs.mend import mend_side_files
from trainer.runs.progress import Progress
from trainer.system.device import available_devices, has_device

log = logging.getLogger("trainer")


def resumed(
    folder: Path, values: Mapping[str, str], force: bool, asked: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Checked configuration and newest intact state of the run in a folder whose lock is held. Its
    side files are mended. Raises UserError.

    Args:
        values: changed keys with their values as typed.
        force: allow changes that make it a different run.
        asked: configuration of the run's own command, which was given again; None: its stored one.
    """
    state = newest_sound_state(folder)
    begun, notes = stored.own_sources(stored.configuration(state, values), values)
    for note in notes:
        log.info("%s", note)
    if begun["teacher"] is not None and "teacher" not in values:
        log.info("teacher=%s: as the checkpoint says; teacher=FILE takes another place of it",
                 begun["teacher"])  # fmt: skip
    config = asked or restore.reconfigure(begun, values)
    check_changes(begun, config, force)
    idle_keys.refuse(
        values, (*idle_keys.FRESH_WEIGHTS, "weights", "replace_head"),
        "a resumed run has its own weights; weights=FILE is for a new one",
    )  # fmt: skip
    check_machine(config, values)
    restore.check_weights(state, config)
    state["progress"] = placed(state["progress"], begun, config)
    # The state holds the weights and normalisation of `weights=`; the file may no longer exist.
    own = {"mean": state["mean"], "std": state["std"]}
    own = {key: value for key, value in own.items() if f"data.{key}" not in values}
    config |= {"weights": None, "replace_head": False, "data": {**config["data"], **own}}
    training_run.check(config)
    idle_keys.refuse_in_training(values, [config])
    training_run.check_data(config)  # download or pack while a signal still ends the command
    mend_side_files(folder, state["config"], config)
    return config, state


def check_machine(config: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """Raises UserError if the run's device does not exist here: another one changes the last bits
    of the result, so the user must choose it."""
    if "device" not in values and not has_device(config["device"]):
        ways = " or ".join(f"device={name}" for name in (*available_devices(), "auto"))
        raise UserError(
            f"device={config['device']}: the run started on it, and this machine has no such "
            f"device. To resume on another one, pass {ways}."
        )


def placed(
    progress: dict[str, Any], stored: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Progress of a state, adapted to a batch size changed with --force. Raises UserError if the
    run has passed the new number of epochs."""
    place = Progress(**progress).with_batch_size(stored["batch_size"], config["batch_size"])
    reached = place.epoch + bool(place.batch)
    if config["epochs"] < reached:
        raise UserError(
            f"epochs={config['epochs']}: the run is already in epoch {reached}; pass a larger one."
        )
    return asdict(place)
