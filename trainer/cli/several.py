"""Several processes on one command: connected, and all but the first as those who take part."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.errors import Stopped
from trainer.system.distributed import Place, is_other


@contextlib.contextmanager
def joined(here: Place) -> Iterator[Any]:
    """World of the processes, connected. In all but the first, nothing is logged."""
    from trainer.training import world

    if is_other():
        logging.disable(logging.CRITICAL)
    with world.joined(here) as found:
        yield found


def known_to_all(
    world: Any, call: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and state, which the call in the first process gives; the data are checked in
    all: each machine must have them."""
    from trainer.builders import training_run

    config, state = world.from_main(call)
    world.together(lambda: training_run.check_data(config))
    return config, state


def take_part(
    world: Any, folder: Path, begin: Callable[[], tuple[dict[str, Any], dict[str, Any] | None]]
) -> None:
    """Train as one of the others. Ends the process with the exit code of what went wrong.

    Args:
        folder: of the first process.
        begin: gives the checked configuration, and the state to resume from; None: none.
    """
    from trainer import job

    try:
        config, state = begin()
        job.run(config, folder, {}, state=state, world=world)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_code) from None
    except Exception as error:
        raise SystemExit(job.report_error(error, folder)) from None
