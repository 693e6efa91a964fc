"""Text as it may reach a person's terminal, log, page or spreadsheet.

Names and reasons come out of files of others. A terminal obeys the control characters in them, a
browser the HTML, a spreadsheet the formulas; so each place that prints cleans what it prints.
"""

from __future__ import annotations

import contextlib
import io
import logging
import unicodedata
from collections.abc import Iterator
from typing import TextIO

# Letters and marks by Unicode's classes, but nobody sees them.
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
STDOUT = "<stdout>"  # Python's name of the stream
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Escapes(dict[int, str]):
    """For str.translate: a character as it is, or escaped as Python writes it."""

    def __init__(self, keep: str) -> None:
        super().__init__({ord(c): c for c in keep})

    def __missing__(self, code: int) -> str:
        char = chr(code)
        seen = char.isprintable() or unicodedata.category(char) == "Zs"
        self[code] = char if seen and char not in INVISIBLE else ascii(char)[1:-1]
        return self[code]


_TABLES: dict[str, _Escapes] = {}


def printable(text: object, keep: str = "") -> str:
    """The same with all that steers a terminal or that nobody sees escaped as Python writes it:
    control characters, marks of direction, characters of no width, halves of surrogate pairs.

    keep: of these, what may stand: "\\n" in a message that has lines; without it, it is one line.
    """
    text = str(text)
    return text.translate(_TABLES.setdefault(keep, _Escapes(keep)))


def in_lines(text: object) -> str:
    """The same of a text that has lines."""
    return printable(text, "\n\t")


def in_csv(text: object) -> str:
    """As a cell of a table that a spreadsheet may open: printable, and never a formula."""
    text = str(text)
    return f"'{printable(text)}" if text.startswith(FORMULA) else printable(text)


class LineFormatter(logging.Formatter):
    """Of a log's file and its lines on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return in_lines(super().format(record))


class PrintableStream(io.TextIOWrapper):
    """Standard output or standard error, to which nothing goes that is not printable, whoever
    prints: what a dependency says of a file holds that file's text, too. Bars, which steer the
    terminal, write to `sys.__stderr__`."""

    def write(self, text: str) -> int:
        with self._reached():
            super().write(in_lines(text))
        return len(text)

    def flush(self) -> None:
        with self._reached():
            super().flush()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """An error of stdout says that it is; one of stderr ends nothing: nobody hears it."""
        try:
            yield
        except OSError as error:
            error.filename = self.name
            if self.name == STDOUT:
                raise


def guarded(stream: TextIO) -> TextIO:
    """The same stream, through which nothing goes that is not printable."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, PrintableStream):
        return stream
    stream.flush()
    return PrintableStream(
        stream.buffer, stream.encoding, "backslashreplace",
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
