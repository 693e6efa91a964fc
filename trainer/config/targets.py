"""The names that configurations give to classes and functions: found, checked, called.

`_target_` is the registry: whoever writes a configuration file, or types on the command line, may
name anything, for naming is calling. `stored.py` says what a checkpoint may.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from trainer.config.knobs import KNOBS
from trainer.errors import UserError
from trainer.system.error_texts import BEYOND_MEMORY
from trainer.text.values import format_value, unknown_name_message

# What `build` hands in, beside the options.
SUPPLIED = {
    "augment": ("num_classes", "hflip"),
    "optimizer": ("params",),
    "scheduler": ("total_steps", "steps_per_epoch"),
}


def instantiate_group(group: str, options: Mapping[str, Any], **supplied: Any) -> Any:
    """Instantiate a group's target, and nothing below it; what its constructor says against the
    values is shown to the user."""
    with constructor_errors(group, options):
        return instantiate(
            OmegaConf.create(dict(options)), _convert_="all", _recursive_=False, **supplied
        )


@contextlib.contextmanager
def constructor_errors(group: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Turns what a constructor says against values into UserError, which names those options that
    the table of knobs does not have: it has let the others pass."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__ or error.__context__ or error
        if isinstance(cause, MemoryError) or any(words in str(cause) for words in BEYOND_MEMORY):
            raise UserError(
                f"{group}: takes more memory than this machine has. Take smaller sizes in {group}.*"
            ) from error
        if isinstance(cause, (ValueError, TypeError, OSError, ImportError)):
            raise UserError(shortened(str(cause))) from error
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        message = str(error)
        if not message.startswith(f"{group}."):
            given = {f"{group}.{key}": value for key, value in options.items() if key[0] != "_"}
            unlisted = [f"{key}={format_value(value)}" for key, value in given.items()
                        if key not in KNOBS]  # fmt: skip
            message = f"{' '.join(unlisted) or group}: refused by {options['_target_']}: {message}"
        raise UserError(shortened(message)) from error


def shortened(message: str) -> str:
    """Without the middle of what is too long to be read, such as a list of thousands of numbers."""
    return message if len(message) <= 1500 else f"{message[:900]} ... {message[-500:]}"


def check_options(group: str, options: Mapping[str, Any]) -> None:
    """Hold a group's options against the signature of its target: unknown and missing names, and
    what a checkpoint of it could not say: its configuration calls the group's target alone."""
    for key in calls_in(options):
        raise UserError(
            f"{group}.{key}: only _target_ at the top of a group is called, and nothing in a group "
            "but it and _partial_ may begin with _. A function of yours can make what it needs."
        )
    parameters, takes_any = parameters_of(locate(group, options["_target_"]))
    names = [name for name in parameters if name not in SUPPLIED.get(group, ())]
    given = [name for name in options if not name.startswith("_")]
    for name in given:
        is_off = group == "optimizer" and options[name] is False  # of another class's switch
        if name not in names and not takes_any and not is_off:
            raise UserError(
                unknown_name_message("key", f"{group}.{name}", [f"{group}.{n}" for n in names])
            )
    for name in names:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise UserError(f"{group}.{name}: is missing; {options['_target_']} needs it.")


def calls_in(
    node: Any, own: Collection[str] = ("_target_", "_partial_"), prefix: str = ""
) -> Iterator[str]:
    """The keys that Hydra would take for its own, at any depth, but for those at the top that a
    group may have."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if str(key).startswith("_") and key not in own:
                yield f"{prefix}{key}"
            yield from calls_in(value, (), f"{prefix}{key}.")
    elif isinstance(node, list):
        for value in node:
            yield from calls_in(value, (), prefix)


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters of a class or function, those of base classes included as far as
    **kwargs hands on to them, and whether any further names are taken."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    bases = [c for c in getattr(target, "__mro__", ())[1:] if "__init__" in vars(c)]
    found: dict[str, inspect.Parameter] = {}
    takes_any = False
    for owner in (target, *bases):
        parameters = inspect.signature(owner).parameters
        found = {n: p for n, p in parameters.items() if p.kind in named} | found
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if not takes_any or owner is object:
            break
    return found, takes_any and not bases


def locate(group: str, target: str) -> Callable[..., Any]:
    """The class or function that a dotted name means."""
    module, _, name = target.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{group}._target_={target}: cannot be imported: {error}.") from error
    return found
