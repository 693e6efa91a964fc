"""Order and choice of the runs in a table, as they are asked for; never by the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainer.errors import UserError
from trainer.runs.read import LARGEST, NOT_STARTED, Row, natural
from trainer.runs.report.names import override_values
from trainer.runs.selection import ordered, rule
from trainer.text.values import unknown_name_message

DEFAULT = "val_accuracy"
# Values of a row to sort by, from small to great.
FIELDS: dict[str, Callable[[Row], Any]] = {
    "val_loss": lambda row: row.val_loss, "best_epoch": lambda row: row.best_epoch,
    "epochs": lambda row: row.epochs, "train_s": lambda row: row.train_s,
    "images_per_s": lambda row: row.images_per_s, "status": lambda row: row.status,
}  # fmt: skip
STATUSES = (
    "finished", "interrupted", "failed", "running", "unfinished", "unreadable", NOT_STARTED
)  # fmt: skip


def sorted_by(rows: Sequence[Row], key: str = DEFAULT) -> list[Row]:
    """Rows by a field of FIELDS, the folder, or an override; equal ones best first by validation,
    and those without a value last. Raises UserError."""
    if key.split("_")[0] == "test":
        raise UserError(f"--sort {key}: not by the test split. The rule: {rule(rows)}.")
    best_first = ordered(rows)
    if key == DEFAULT:
        return best_first
    if key == "folder":
        return sorted(best_first, key=lambda row: natural(row.folder))
    keys = {name for row in rows for name in override_values(row.overrides)}
    if key not in FIELDS and key not in keys:
        known = (DEFAULT, "folder", *FIELDS, *(keys - {"test"}))
        raise UserError(f"--sort {key}: " + unknown_name_message("column", key, known))
    value = FIELDS.get(key, lambda row: override_values(row.overrides).get(key))
    return sorted(best_first, key=lambda row: place(value(row)))


def place(value: Any) -> tuple[int, float, str]:
    """Numbers before texts before nothing."""
    if value is None:
        return 2, 0.0, ""
    number = as_number(value)
    return (1, 0.0, str(value)) if number is None else (0, number, "")


def as_number(value: Any) -> float | None:
    """Of a number, or a text that is one, of a size that can be drawn."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < LARGEST else None


def with_status(rows: Sequence[Row], wanted: str) -> list[Row]:
    """Rows whose status is one of some, as typed: "failed,not-started". Raises UserError."""
    names = [word.strip().replace("-", " ").replace("_", " ") for word in wanted.split(",")]
    for name in names:
        if name not in STATUSES:
            raise UserError(f"--status {wanted}: " + unknown_name_message("status", name, STATUSES))
    return [row for row in rows if row.status in names]
