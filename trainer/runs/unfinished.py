"""Runs that are not finished: the newest of a folder, or the jobs of a sweep."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from trainer.errors import UserError
from trainer.runs.lock import is_locked
from trainer.runs.read import read_runs
from trainer.runs.side_files import read_json, readable, status_of

LONGEST_REASON = 300  # characters of another run's error message


def newest_unfinished(outputs: Path) -> Path:
    """Folder of the newest unfinished run below `outputs` that is not running now. Failed runs are
    skipped: most fail again from the same state, and a repeated command would never reach the
    others. Raises UserError if there is none."""
    found = {state.parent.parent for state in outputs.rglob("checkpoints/step_*.pth")}
    found = {run for run in found if os.access(run, os.W_OK)}  # runs of other users may lie there
    status = {run: status_of(run) for run in found}
    unfinished = [run for run in found if status[run] not in ("finished", "failed")]
    idle = [run for run in unfinished if not is_locked(run)]
    failed = max((run for run in found if status[run] == "failed"), key=written, default=None)
    left_out = "" if failed is None else (
        f"Failed runs are skipped; the newest: {failed}: {reason_of(failed)}\n"
        f"Once the cause is fixed: trainer resume {failed}"
    )  # fmt: skip
    if not idle:
        going = " that is not running now" if unfinished else ""
        raise UserError(
            f"{outputs}: no unfinished run below it{going}. "
            f"{left_out or 'Name one: trainer resume RUN_DIR.'}"
        )
    newest = max(idle, key=written)
    if failed is not None and written(failed) > written(newest):
        print(left_out, file=sys.stderr)
    return newest


def written(run: Path) -> float:
    """Time of the latest change in a run's checkpoints/, in seconds since the epoch."""
    return (run / "checkpoints").stat().st_mtime


def reason_of(run: Path) -> str:
    summary = readable({"reason": "unknown"}, read_json, run / "summary.json")
    return str(summary.get("reason"))[:LONGEST_REASON]


def refuse_no_run(folder: Path) -> None:
    """Raises UserError if a folder holds no run: a sweep cannot be resumed, but its interrupted
    jobs can."""
    if (folder / "checkpoints").is_dir():
        return
    if not os.path.exists(folder / "multirun.yaml"):
        raise UserError(
            f"{folder}: holds no run to resume: it has no checkpoints/. A training that ended "
            "before it saved a state must be started again with its own command."
        )
    rows = [row for row in read_runs(folder) if row.status not in ("finished", "running")]
    jobs = [row.folder for row in rows if (row.folder / "checkpoints").is_dir()]
    first = f" For example: python -m trainer resume {jobs[0]}" if jobs else ""
    raise UserError(
        f"{folder}: is a sweep of a launcher of Hydra's, which is resumed job by job. "
        f"`python -m trainer report {folder}` lists which of its jobs are finished; {len(jobs)} of "
        f"them were interrupted and can be resumed one by one.{first}"
    )
