"""Reads the pickles of CIFAR's files without unpickling: nothing that a file names is called.

Such a file is a dict of lists, texts, numbers and one array of bytes. The opcodes that write these
are few; `pickletools` takes them apart, and here each does what it says of them, on plain Python
values. An array is known by the calls that NumPy's pickles consist of, which are looked at and not
made; any other call ends the reading. So what a file asks for is bounded by its own length: there
are no imports, no recursion, and no copies of what it repeats.

Understood: protocols 0 to 5, thus the dataset's own files (Python 2, protocol 2) and those that
others have written again, by NumPy 1 or 2, with bytes as text (`_codecs.encode`) or as buffers;
but not arrays by Python 2's protocol 0.
"""

from __future__ import annotations

import pickletools
import warnings
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
_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False}
# Opcodes that push their argument.
_VALUES = frozenset((
    "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip


def read_pickle(content: bytes) -> Any:
    """The one value in a pickle: dict, list, tuple, str, bytes, int, float, None, `Array`. Texts of
    Python 2 are bytes.

    Raises:
        NotPlainError: anything else.
    """
    try:
        with warnings.catch_warnings():  # of escapes in texts
            warnings.simplefilter("ignore")
            return _Reader(content).read()
    except NotPlainError:
        raise
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise NotPlainError(f"it is cut off or damaged ({type(error).__name__})") from error


class _Reader:
    """A pickle's stack and memo. What other opcodes than those that push a value do, `_ACTIONS`
    says."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encodable = len(content)  # characters that `encode` may still turn into bytes

    def read(self) -> Any:
        for opcode, argument, place in pickletools.genops(self.content):
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in _VALUES:
                self.stack.append(_value(name, argument))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            else:
                raise NotPlainError(f"it has the opcode {name} at byte {place}")
        raise NotPlainError("it is cut off")

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

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise NotPlainError(f"it is damaged: a {kind.__name__} is missing")
        return self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def make_tuple(self, length: int) -> None:
        values = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(values)))

    def make_dict(self) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        into = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int):  # others may take long to hash
                raise NotPlainError("a key of it is no text")
            into[key] = value

    def refer_by_stack(self) -> None:
        name, module = self.pop(), self.pop()
        self.refer(arrays.as_text(module), arrays.as_text(name))

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


def _value(name: str, argument: Any) -> Any:
    if name.endswith("STRING"):  # of Python 2: bytes
        return argument.encode("latin1")
    if isinstance(argument, int) and argument.bit_length() > 64:
        raise NotPlainError("it has a number of more than 64 bits")
    return bytes(argument) if isinstance(argument, bytearray) else argument


_ACTIONS: dict[str, Callable[[_Reader, Any], object]] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), lambda r, _: None),
    "EMPTY_LIST": lambda r, _: r.stack.append([]),
    "EMPTY_DICT": lambda r, _: r.stack.append({}),
    "EMPTY_TUPLE": lambda r, _: r.stack.append(()),
    "LIST": lambda r, _: r.stack.append(r.pop_to_mark()),
    "DICT": lambda r, _: r.make_dict(),
    "TUPLE": lambda r, _: r.stack.append(tuple(r.pop_to_mark())),
    "TUPLE1": lambda r, _: r.make_tuple(1),
    "TUPLE2": lambda r, _: r.make_tuple(2),
    "TUPLE3": lambda r, _: r.make_tuple(3),
    "APPEND": lambda r, _: r.extend([r.pop()]),
    "APPENDS": lambda r, _: r.extend(r.pop_to_mark()),
    "SETITEM": lambda r, _: r.set_items([r.pop(), r.pop()][::-1]),
    "SETITEMS": lambda r, _: r.set_items(r.pop_to_mark()),
    "POP": lambda r, _: r.pop(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Reader.put),
    "MEMOIZE": lambda r, _: r.put(len(r.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda r, i: r.stack.append(r.memo[i])),
    "GLOBAL": lambda r, names: r.refer(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.refer_by_stack(),
    "REDUCE": lambda r, _: r.call(),
    "BUILD": lambda r, _: r.build(),
}
