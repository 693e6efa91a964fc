"""Predictions as people and programs see them: rows, JSON, copies of the images with a caption."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from data.images.decode import FORMATS, decode
from trainer.errors import UserError
from trainer.evaluation import plots
from trainer.system import progress_bars
from trainer.text.printable import in_lines, printable

MANY = 32  # files, from which on a bar is worth its line
NO_MEMORY = "it takes more memory than there is; make it smaller, or end other programs."


def with_copy(
    result: dict[str, Any], targets: dict[Path, Path], how: Mapping[str, Any]
) -> dict[str, Any]:
    """The result, once its copy is written; or, if memory has run out, that as its error."""
    try:
        annotate(result, targets, how)
    except MemoryError:  # of the image in its full size, which the model does not see
        return {"file": result["file"], "error": NO_MEMORY}
    return result


def annotate(result: Mapping[str, Any], targets: dict[Path, Path], how: Mapping[str, Any]) -> None:
    """Write the copy of this image; once, of a file that was named several times."""
    file = Path(result["file"])
    if file not in targets:
        return
    target = targets.pop(file)
    top = [(plots.drawable(x["class"], x["index"]), x["probability"]) for x in result["top"]]
    kind = Image.registered_extensions().get(target.suffix.lower(), "")
    kind = kind if kind in FORMATS and kind in Image.SAVE else "PNG"
    content = io.BytesIO()
    options = {"quality": 95} if kind == "JPEG" else {}
    picture = decode(file, channels=3, **how)
    plots.annotated(picture, top).save(content, kind, **options)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as copy:  # never over what is there
            copy.write(content.getbuffer())
    except OSError as error:
        raise UserError(f"-o: {target} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def progress(num_files: int) -> Iterator[Callable[[], object]]:
    """A bar on the terminal, unless the results themselves scroll by there."""
    if num_files <= MANY or sys.stdout.isatty():
        yield lambda: None
        return
    with progress_bars.bar(num_files, "predict", unit=" images") as bar:
        yield bar.update


def show_json(result: Mapping[str, Any]) -> None:
    print(json.dumps(result, allow_nan=False))


def table(files: Sequence[Path]) -> Callable[[Mapping[str, Any]], None]:
    """Shows results as rows under a heading: the file beside its first class, further classes
    below. What failed goes to stderr."""
    width = max(len(printable(file)) for file in files)
    print(f"{'file':<{width}}  probability  class")

    def show(result: Mapping[str, Any]) -> None:
        name = printable(result["file"])
        if "error" in result:
            complain(f"{name}: {result['error']}")
        for row in result.get("top", ()):
            print(f"{name:<{width}}  {row['probability']:>11.4f}  {printable(row['class'])}")
            name = ""

    return show


def complain(words: str) -> None:
    """A line on stderr, after the rows before it and above the bar."""
    sys.stdout.flush()
    with progress_bars.above():
        print(in_lines(words), file=sys.stderr, flush=True)
