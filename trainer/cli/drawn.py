"""Commands that draw one curve of a training's configuration, without a run."""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.builders.idle_keys import keys_in
from trainer.errors import UserError

if TYPE_CHECKING:
    from trainer.evaluation.line_plot import Curve

ENDINGS = (".png", ".html")


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--force", action="store_true")


def check_output(args: argparse.Namespace) -> None:
    """Raises UserError for a file that cannot be written, before anything is computed."""
    for path in args.output:
        if path.suffix not in ENDINGS:
            raise UserError(f"-o {path}: must end in {' or '.join(ENDINGS)}.")
        if not path.absolute().parent.is_dir():
            raise UserError(f"-o {path}: there is no folder {path.parent}.")
        if path.exists() and not args.force:
            raise UserError(f"{path}: exists. --force replaces it, -o FILE takes another name.")


def write(args: argparse.Namespace, curve: Curve, text: str) -> None:
    """Write the files that were named: an image, or a page with the image and the text."""
    from trainer.evaluation.line_plot import picture
    from trainer.runs.report import html
    from trainer.system.files import write_bytes

    buffer = io.BytesIO()
    picture(curve).save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    for path in args.output:
        page = html.render("plot.html", title=curve.title, source=source, text=text)
        write_bytes(path, buffer.getvalue() if path.suffix == ".png" else page.encode())
        print(f"written: {path}")


def checked(words: Sequence[str], command: str) -> tuple[dict[str, Any], set[str]]:
    """Configuration of a training, and the keys that were typed. Raises UserError."""
    from trainer.config.compose import one_job, parse

    args = parse(list(words))
    plain = vars(parse([])) | {"overrides": args.overrides, "flags": args.flags}
    plain |= {name: getattr(args, name) for name in ("config_dir", "config_name")}
    if args != argparse.Namespace(**plain):
        raise UserError(f"{command} takes key=value words and its own options alone. See "
                        f"trainer {command} --help.")  # fmt: skip
    return one_job(args), keys_in(args.overrides)


def refuse_no_part(typed: set[str], has_part: Callable[[str], bool], what: str) -> None:
    """Raises UserError that names the first typed key that changes nothing here."""
    for key in sorted(typed):
        if not has_part(key):
            raise UserError(f"{key}: plays no part in {what}. Leave the key out.")
