"""Escaping of text for a terminal, a log, a page or a spreadsheet.

Names and error messages can come from untrusted files. A terminal obeys the control characters in
them, a browser the HTML, a spreadsheet the formulas; so all output is escaped.
"""

from __future__ import annotations

import contextlib
import io
import logging
import unicodedata
from collections.abc import Iterator
from typing import TextIO

# Letters and marks by Unicode's categories that are invisible.
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
STDOUT = "<stdout>"  # Python's name of the stream
FORMULA = ("=", "+", "-", "@", "\t", "\r")


class _Escapes(dict[int, str]):
    """Table for str.translate: a character unchanged, or escaped as in a Python string."""

    def __init__(self, keep: str) -> None:
        super().__init__({ord(c): c for c in keep})

    def __missing__(self, code: int) -> str:
        char = chr(code)
        seen = char.isprintable() or unicodedata.category(char) == "Zs"
        self[code] = char if seen and char not in INVISIBLE else ascii(char)[1:-1]
        return self[code]


_TABLES: dict[str, _Escapes] = {}


def printable(text: object, keep: str = "") -> str:
    """The text with control characters and invisible characters escaped as in a Python string:
    direction marks, zero-width characters and lone surrogates included.

    Args:
        keep: characters that are not escaped, such as "\\n" in a message of several lines.
    """
    text = str(text)
    return text.translate(_TABLES.setdefault(keep, _Escapes(keep)))


def in_lines(text: object) -> str:
    """Printable form of a text of several lines: newlines and tabs are kept."""
    return printable(text, "\n\t")


def in_csv(text: object) -> str:
    """Printable form for a cell of a CSV file; a quote in front keeps a spreadsheet from reading it
    as a formula."""
    text = str(text)
    return f"'{printable(text)}" if text.startswith(FORMULA) else printable(text)


class LineFormatter(logging.Formatter):
    """Formatter of the log's file and terminal lines: the text is printable."""

    def format(self, record: logging.LogRecord) -> str:
        return in_lines(super().format(record))


class PrintableStream(io.TextIOWrapper):
    """Stream for standard output or standard error that makes all text printable, also what
    dependencies print. Progress bars, which need control characters, write to `sys.__stderr__`."""

    def write(self, text: str) -> int:
        with self._reached():
            super().write(in_lines(text))
        return len(text)

    def flush(self) -> None:
        with self._reached():
            super().flush()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Context that names the stream in an OSError of stdout, and ignores one of stderr."""
        try:
            yield
        except OSError as error:
            error.filename = self.name
            if self.name == STDOUT:
                raise


def guarded(stream: TextIO) -> TextIO:
    """The stream wrapped in a PrintableStream, unless it is one or has no buffer."""
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, PrintableStream):
        return stream
    stream.flush()
    return PrintableStream(
        stream.buffer, stream.encoding, "backslashreplace",
        line_buffering=stream.line_buffering, write_through=stream.write_through,
    )  # fmt: skip
