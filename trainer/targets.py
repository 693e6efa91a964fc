"""The names that configurations give to classes and functions: found, checked, called.

`_target_` is the registry: whoever writes a configuration file, or types on the command line, may
name anything. A configuration that comes out of a checkpoint may name only what is listed here,
for naming is calling.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from trainer import config as knobs
from trainer.errors import UserError

# What a configuration that comes out of a file may name, per group.
ALLOWED_TARGETS = {
    "model": ("models.", "torchvision.models."),
    "data": ("data.",),
    "augment": ("data.augment.",),
    "optimizer": ("torch.optim.",),
    "scheduler": ("trainer.schedules.",),
    "loss": ("trainer.losses.",),
}

# What torch says of sizes that it cannot have, or cannot even count.
BEYOND_MEMORY = (
    "can't allocate memory", "Storage size calculation overflowed", "Overflow when unpacking long",
)  # fmt: skip

# What `build` hands in, beside the options.
SUPPLIED = {
    "augment": ("num_classes", "hflip"),
    "optimizer": ("params",),
    "scheduler": ("total_steps", "steps_per_epoch"),
}


def make(group: str, options: Mapping[str, Any], **supplied: Any) -> Any:
    """Instantiate a group's target; what its constructor says against the values is shown to the
    user."""
    with constructor_errors(group):
        return instantiate(OmegaConf.create(dict(options)), _convert_="all", **supplied)


@contextlib.contextmanager
def constructor_errors(group: str) -> Iterator[None]:
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__ or error.__context__ or error
        if isinstance(cause, MemoryError) or any(words in str(cause) for words in BEYOND_MEMORY):
            raise UserError(
                f"{group}: takes more memory than this machine has. Take smaller sizes in {group}.*"
            ) from error
        if isinstance(cause, (ValueError, TypeError, OSError, ImportError)):
            raise UserError(str(cause)) from error
        raise
    except (ValueError, TypeError) as error:
        message = str(error)
        named = message.startswith(f"{group}.")
        raise UserError(message if named else f"{group}: {message}") from error


def check_options(group: str, options: Mapping[str, Any]) -> None:
    """Hold a group's options against the signature of its target: unknown and missing names."""
    parameters, takes_any = parameters_of(locate(group, options["_target_"]))
    names = [name for name in parameters if name not in SUPPLIED.get(group, ())]
    given = [name for name in options if not name.startswith("_")]
    for name in given:
        if name not in names and not takes_any:
            raise UserError(
                knobs.unknown("key", f"{group}.{name}", [f"{group}.{n}" for n in names])
            )
    for name in names:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise UserError(f"{group}.{name}: is missing; {options['_target_']} needs it.")


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


def check_allowed(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Refuse a configuration out of a file that names anything else.

    Args:
        trust: modules that the user has named on this command line, beside the list.

    Raises UserError.
    """
    trusted = tuple(f"{module}." for module in trust)
    for group, own in ALLOWED_TARGETS.items():
        prefixes = (*own, *trusted)
        for target in targets_in(config[group]):
            if not (target.startswith(prefixes) and home(group, target).startswith(prefixes)):
                raise UserError(
                    f"The checkpoint names {group}._target_={target}, which is none of this "
                    "program's own, and is not run. If you know where the file comes from, "
                    f"trust={target.partition('.')[0]} takes it."
                )


def home(group: str, target: str) -> str:
    """Where the thing is defined: a module of ours also holds names that it has imported, and
    `data.files.os.system` must not pass for one of `data`."""
    return f"{getattr(locate(group, target), '__module__', '')}."


def targets_in(node: Any) -> Iterator[str]:
    """Every `_target_` in a tree of dicts and lists."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(node, list):
        for item in node:
            yield from targets_in(item)
