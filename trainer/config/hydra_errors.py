"""Errors of Hydra, OmegaConf and the YAML parser on wrong input, as one message each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import yaml
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from trainer.config import knobs, suggestions
from trainer.config.hydra_internals import ConfigLoaderImpl
from trainer.errors import UserError
from trainer.system.error_texts import UNKNOWN_KEY
from trainer.text.values import unknown_name_message

LONGEST = 300  # characters of a message of Hydra's, and of a word in one


@contextlib.contextmanager
def user_errors(loader: ConfigLoaderImpl | None = None) -> Iterator[None]:
    """Turns them into UserError."""
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_missing(error)) from error
    except OverrideParseException as error:
        if "=" not in str(error.override):
            raise UserError(
                f"{cut(error.override)}: a training takes key=value words. See --help for the "
                "commands."
            ) from error
        raise UserError(
            f"{cut(error.override)}: not understood. {cut(first_line(error.message))}\n"
            "A value with spaces, commas, brackets or letters beyond ASCII needs quotes of its "
            "own: 'data.root=\"my images\"'."
        ) from error
    except SearchPathException as error:
        raise UserError(first_line(error)) from error
    except (yaml.YAMLError, MissingMandatoryValue) as error:
        raise UserError(_short(error)) from error
    except OmegaConfBaseException as error:
        raise UserError(_bad_key(error, loader)) from error
    except HydraException as error:
        inner = error.__cause__ or error.__context__
        if isinstance(inner, OmegaConfBaseException):
            raise UserError(_bad_key(inner, loader)) from error
        if isinstance(inner, yaml.YAMLError):
            raise UserError(_short(inner)) from error
        raise UserError(_short(error)) from error


def _missing(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group or error.options is None:
        return _short(error)
    typed = (error.missing_cfg_file or "").partition("/")[2]
    hint = suggestions.of_choice(group.partition("/")[0], typed)
    if hint:
        return f"There is no choice for {group} '{cut(name)}'. {hint}"
    return unknown_name_message(f"choice for {group}", name, error.options)


def _bad_key(error: OmegaConfBaseException, loader: ConfigLoaderImpl | None) -> str:
    key, parent = error.full_key or str(error.key or ""), error.parent_node
    is_unknown = any(words in str(error) for words in UNKNOWN_KEY)
    if not key or not is_unknown or not isinstance(parent, DictConfig):
        return f"{key}: {first_line(error)}" if key else _short(error)
    prefix = key.rpartition(".")[0] + "." if "." in key else ""
    for name in map(str, parent):
        if prefix and (prefix + name).startswith(key + "."):
            return (
                f"{prefix}{name}: a dot in a name, {name}, is taken for a level in KEY=VALUE. In "
                f"quotes, this sets it: '{prefix[:-1]}={{{name}: \"VALUE\"}}'"
            )
    valid = [prefix + str(k) for k in parent if not str(k).startswith("_")]
    if not prefix and (right := suggestions.meant(key, knobs.known_keys())):
        return f"There is no key '{cut(key)}'. Did you mean {suggestions.with_value(right)}?"
    if not prefix and loader is not None:
        valid += [group for group in loader.list_groups("") if group != "hydra"]
    return unknown_name_message("key", key, valid)


def not_composed(overrides: Sequence[str], error: Exception) -> str:
    reason = first_line(error) or type(error).__name__
    return f"{cut(' '.join(overrides))}: no configuration can be made of this: {cut(reason)}"


def cut(text: object) -> str:
    return f"{str(text)[:LONGEST]}{'...' if len(str(text)) > LONGEST else ''}"


def first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _short(error: object) -> str:
    return "\n".join(cut(line) for line in str(error).strip().splitlines()[:12])
