"""Reads the pickles of CIFAR's files without unpickling: nothing that a file names is called.

Such a file is a dict of lists, texts, numbers and one array of bytes. The opcodes that write these
are few; here each does what `pickletools` says of it, on plain Python values. An array is known by
the calls that NumPy's pickles consist of, which are looked at and not made; any other call ends the
reading. So what a file asks for is bounded by its own length: there are no imports, no recursion,
and no copies of what it repeats.

Understood: protocols 0 to 5, thus the dataset's own files (Python 2, protocol 2) and those that
others have written again, by NumPy 1 or 2, with bytes as text (`_codecs.encode`) or as buffers.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable
from typing import Any

from data.cifar import pickled_arrays as arrays
from data.cifar.pickled_arrays import NotPlainError

# Where the names in NumPy's pickles are looked for: its modules moved from NumPy 1 to 2.
_MODULES = {
    "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric",
    "numpy", "_codecs", "__builtin__", "builtins",
}  # fmt: skip
_HOMES = {
    "_reconstruct": "multiarray", "scalar": "multiarray", "_frombuffer": "numeric",
    "ndarray": "numpy", "dtype": "numpy", "encode": "_codecs", "bytes": "builtin",
}  # fmt: skip
_MARK = object()


def read_pickle(content: bytes) -> Any:
    """The one value in a pickle: dict, list, tuple, str, bytes, int, float, None, `Array`. Texts of
    Python 2 are bytes.

    Raises:
        NotPlainError: anything else.
    """
    try:
        return _Reader(content).read()
    except NotPlainError:
        raise
    except (IndexError, KeyError, struct.error, TypeError, ValueError, OverflowError) as error:
        raise NotPlainError(f"it is cut off or damaged ({type(error).__name__})") from error


class _Reader:
    """A pickle's stack and memo. Each opcode is a method that `_OPCODES` names."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encodable = len(content)  # characters that `encode` may still turn into bytes

    def read(self) -> Any:
        content, opcodes = self.content, _OPCODES
        while True:
            code = content[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                return self.pop()
            opcode = opcodes.get(code)
            if opcode is None:
                raise NotPlainError(f"it has the opcode 0x{code:02x} at byte {self.at - 1}")
            opcode(self)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise NotPlainError("it is damaged: a mark stands where a value should")
        return value

    def pop_to_mark(self) -> list[Any]:
        """Values pushed since the last mark. Looked for from the end, so that each value is
        visited once."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise NotPlainError("it is damaged: a mark is missing")
        values = self.stack[at + 1 :]
        del self.stack[at:]
        return values

    def take(self, num_bytes: int) -> bytes:
        end = self.at + num_bytes
        if num_bytes < 0 or end > len(self.content):
            raise NotPlainError("it is cut off")
        self.at, start = end, self.at
        return self.content[start:end]

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def line(self) -> bytes:
        end = self.content.index(b"\n", self.at)
        start, self.at = self.at, end + 1
        return self.content[start:end]

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise NotPlainError(f"it is damaged: a {kind.__name__} is missing")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        into = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int):  # others may take long to hash
                raise NotPlainError("a key of it is no text")
            into[key] = value

    def refer(self, module: str, name: str) -> None:
        if module not in _MODULES or _HOMES.get(name, "?") not in module:
            raise NotPlainError(f"it refers to {str(module)[:40]}.{str(name)[:40]}")
        self.stack.append(arrays.Global(module, name))

    def call(self) -> None:
        """Result of a call, worked out here; only of the names above."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, arrays.Global) or not isinstance(arguments, tuple):
            raise NotPlainError("it calls what is no function")
        known: dict[str, Callable[..., Any]] = {
            "_reconstruct": arrays.reconstructed, "_frombuffer": arrays.from_buffer,
            "scalar": arrays.scalar, "dtype": arrays.dtype,
            "encode": self.encoded, "bytes": arrays.no_bytes,
        }  # fmt: skip
        make = known.get(function.name)
        named = f"it refers to {function.module}.{function.name} as no array does"
        if make is None:
            raise NotPlainError(named)
        try:
            self.stack.append(make(*arguments))
        except (TypeError, NotPlainError) as error:
            reason = f" ({error})" if isinstance(error, NotPlainError) else ""
            raise NotPlainError(named + reason) from error

    def encoded(self, text: Any, encoding: Any) -> bytes:
        """Bytes that protocols below 3 keep as text. What one text gives is counted, for a file may
        name the same one a million times."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1", "latin-1"):
            raise NotPlainError("it encodes something else than a text as latin1")
        self.encodable -= len(text)
        if self.encodable < 0:
            raise NotPlainError("it repeats bytes beyond its own length")
        return text.encode("latin1")

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, arrays.Dtype):
            arrays.set_order(target, state)
        elif isinstance(target, arrays.Array):
            arrays.fill(target, state)
        else:
            raise NotPlainError(f"it gives a state to a {type(target).__name__}")


def _push(value: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    def push(reader: _Reader) -> None:
        reader.stack.append(value(reader))

    return push


def _long(reader: _Reader, form: str) -> int:
    length = reader.number(form)
    if length > 8:
        raise NotPlainError("it has a number of more than 64 bits")
    return int.from_bytes(reader.take(length), "little", signed=True)


def _line_number(line: bytes) -> int | bool:
    if line in (b"00", b"01"):
        return line == b"01"
    if not re.fullmatch(rb"[+-]?\d{1,19}L?", line):
        raise NotPlainError("it has a number of more than 64 bits")
    return int(line.rstrip(b"L"))


def _quoted(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise NotPlainError("it has a text without quotes")
    return codecs.escape_decode(line[1:-1])[0]


def _append(reader: _Reader) -> None:
    value = reader.pop()
    reader.top(list).append(value)


def _appends(reader: _Reader) -> None:
    values = reader.pop_to_mark()
    reader.top(list).extend(values)


def _set_item(reader: _Reader) -> None:
    value, key = reader.pop(), reader.pop()
    reader.set_items([key, value])


def _new_dict(reader: _Reader) -> None:
    items = reader.pop_to_mark()
    reader.stack.append({})
    reader.set_items(items)


def _tuple_of(length: int) -> Callable[[_Reader], None]:
    def make(reader: _Reader) -> None:
        values = [reader.pop() for _ in range(length)]
        reader.stack.append(tuple(reversed(values)))

    return make


def _put(index: Callable[[_Reader], int]) -> Callable[[_Reader], None]:
    def put(reader: _Reader) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return put


def _global(reader: _Reader) -> None:
    module, name = (reader.line().decode("latin1") for _ in range(2))
    reader.refer(module, name)


def _stack_global(reader: _Reader) -> None:
    name, module = reader.pop(), reader.pop()
    reader.refer(arrays.as_text(module), arrays.as_text(name))


def _utf8(reader: _Reader, form: str) -> str:
    return reader.take(reader.number(form)).decode("utf-8", "surrogatepass")


_OPCODES: dict[int, Callable[[_Reader], None]] = {
    ord(code): opcode
    for code, opcode in {
        "\x80": lambda r: r.take(1) and None,  # PROTO
        "\x95": lambda r: r.take(8) and None,  # FRAME: a hint of how much to read at once
        "(": _push(lambda r: _MARK),
        "N": _push(lambda r: None),
        "\x88": _push(lambda r: True),
        "\x89": _push(lambda r: False),
        "K": _push(lambda r: r.byte()),
        "M": _push(lambda r: r.number("<H")),
        "J": _push(lambda r: r.number("<i")),
        "\x8a": _push(lambda r: _long(r, "<B")),
        "\x8b": _push(lambda r: _long(r, "<i")),
        "I": _push(lambda r: _line_number(r.line())),
        "L": _push(lambda r: _line_number(r.line())),
        "F": _push(lambda r: float(r.line())),
        "G": _push(lambda r: struct.unpack(">d", r.take(8))[0]),
        "S": _push(lambda r: _quoted(r.line())),
        "U": _push(lambda r: r.take(r.byte())),
        "T": _push(lambda r: r.take(r.number("<i"))),
        "V": _push(lambda r: r.line().decode("raw-unicode-escape")),
        "\x8c": _push(lambda r: _utf8(r, "<B")),
        "X": _push(lambda r: _utf8(r, "<I")),
        "\x8d": _push(lambda r: _utf8(r, "<Q")),
        "C": _push(lambda r: r.take(r.byte())),
        "B": _push(lambda r: r.take(r.number("<I"))),
        "\x8e": _push(lambda r: r.take(r.number("<Q"))),
        "\x96": _push(lambda r: r.take(r.number("<Q"))),  # BYTEARRAY8, which stays bytes here
        "\x98": lambda r: None,  # READONLY_BUFFER
        "]": _push(lambda r: []),
        "}": _push(lambda r: {}),
        ")": _push(lambda r: ()),
        "l": _push(lambda r: r.pop_to_mark()),
        "d": _new_dict,
        "t": _push(lambda r: tuple(r.pop_to_mark())),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "a": _append,
        "e": _appends,
        "s": _set_item,
        "u": lambda r: r.set_items(r.pop_to_mark()),
        "0": lambda r: r.pop() and None,
        "q": _put(lambda r: r.byte()),
        "r": _put(lambda r: r.number("<I")),
        "p": _put(lambda r: int(_line_number(r.line()))),
        "\x94": _put(lambda r: len(r.memo)),
        "h": _push(lambda r: r.memo[r.byte()]),
        "j": _push(lambda r: r.memo[r.number("<I")]),
        "g": _push(lambda r: r.memo[_line_number(r.line())]),
        "c": _global,
        "\x93": _stack_global,
        "R": _Reader.call,
        "b": _Reader.build,
    }.items()
}
