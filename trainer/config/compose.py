"""Everything that knows Hydra's inside: composing ahead of `hydra.main`, so that wrong input ends
with one message and no folder, and turning Hydra's errors into such messages.

Hydra itself exits with 1 on composition errors, makes the run's folder before any code of ours
runs, and overwrites an existing run's `.hydra/`. Composing the same command line first takes 0.1 s
and prevents all three. Hydra's private names are in `hydra_internals`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra import main as hydra_main
from hydra import version
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import (
    HydraException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from trainer.config import hydra_internals, suggestions
from trainer.config.hydra_internals import (
    ConfigLoaderImpl,
    create_config_search_path,
    get_args_parser,
)  # fmt: skip
from trainer.config.knobs import CONFIGS, GROUPS, KNOBS, OTHER_TEXTS, is_text
from trainer.errors import UserError
from trainer.system.error_texts import UNKNOWN_KEY
from trainer.text.values import unknown_name_message

LONGEST_WORD = 4096  # characters; Hydra reads a list of as many in some four seconds
MAX_LISTED_JOBS = 10_000
LONGEST = 300  # characters of a message of Hydra's, and of a word in one

# A sweep of more jobs is checked value by value instead of combination by combination.
MAX_CHECKED_JOBS = 200


def parse(argv: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides. argparse ends the process with 2 on unknown flags."""
    parser = get_args_parser()
    parser.prog = "trainer"

    def refuse(message: str) -> NoReturn:
        hint = suggestions.of_option(argv, known_keys())
        raise UserError(hint or f"{message[:LONGEST]}. See --help.")

    parser.error = refuse  # type: ignore[method-assign]
    args = parser.parse_intermixed_args(argv)
    flags = list(argv)
    for word in args.overrides:
        flags.remove(word)
    for word in args.overrides:
        if len(word) > LONGEST_WORD:
            raise UserError(
                f"{word[:60]}...: {len(word):,} characters; a word may have {LONGEST_WORD:,}. What "
                "is longer goes into a YAML file, see --config-dir."
            )
    args.flags = flags
    args.overrides = [as_typed(word, args.multirun) for word in args.overrides]
    if args.experimental_rerun:
        raise UserError("--experimental-rerun is not supported; `resume` continues a run.")
    if args.multirun and (args.cfg or args.info):
        raise UserError("--multirun goes with a training, not with --cfg or --info.")
    for flag in ("config_dir", "config_path", "config_name", "package"):
        if getattr(args, flag) == "":
            raise UserError(f"--{flag.replace('_', '-')}: needs a value.")
    modes = ("run", "multirun", "cfg", "info", "shell_completion")
    if len(given := [f"--{mode}".replace("_", "-") for mode in modes if getattr(args, mode)]) > 1:
        raise UserError(f"{' '.join(given)}: one of them at a time.")
    if args.resolve and not args.cfg:
        raise UserError("--resolve goes with --cfg job.")
    return args


def known_keys() -> set[str]:
    return {*KNOBS, *GROUPS, "experiment", *OTHER_TEXTS}


def as_typed(word: str, multirun: bool) -> str:
    """A word KEY=VALUE in which a value that is a text, such as a path, is in quotes, so that
    Hydra's grammar takes 2024_01_15 for no number and `on` for no truth, and ~/photos or names
    with blanks, commas and brackets are as they were typed. A sweep's commas go on to divide."""
    name, equals, value = word.partition("=")
    if not equals or not is_text(name.lstrip("+")) or value in ("", "null", "???"):
        return word
    if value[0] in "'\"" and len(value) > 1 and value[-1] == value[0]:
        return word
    if not multirun:
        return f"{name}={quoted(value)}"
    if re.search(r"[()\[\]{}'\"]", value):
        return word
    return f"{name}={','.join(quoted(one.strip()) for one in value.split(','))}"


def sweep_jobs(task: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, by what its command line said; [] where that cannot be
    told. Nothing in them is resolved, and no more than MAX_LISTED_JOBS are listed."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(task))
        choices = [list(itertools.islice(_values(one), MAX_LISTED_JOBS)) for one in parsed]
    except (HydraException, ValueError, TypeError):
        return []
    product = itertools.product(*choices)
    return [list(words) for words in itertools.islice(product, MAX_LISTED_JOBS)]


def call_hydra(argv: list[str], task: Callable[[DictConfig], Any]) -> None:
    """`hydra.main` on this command line. An absolute path to configs/ works alike from a
    checkout, an installed package, as a module and as a console script."""
    hydra_internals.share_config_store()
    hydra_internals.raise_errors()
    sys.argv = ["trainer", *argv]
    with user_errors():
        hydra_main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(task)()


class Composer:
    """Composes what a command line asks for, without running anything."""

    def __init__(self, args: argparse.Namespace) -> None:
        version.setbase("1.3")
        setup_globals()
        configs = Path(args.config_path).resolve() if args.config_path else CONFIGS
        search_path = create_config_search_path(str(configs))
        if args.config_dir:
            folder = os.path.abspath(args.config_dir)
            if not os.path.isdir(folder):
                raise UserError(f"--config-dir {args.config_dir}: there is no such folder.")
            refuse_shadowed(Path(folder), configs, f"{args.config_name or 'config'}.yaml")
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery("schema", None))
        self.loader = ConfigLoaderImpl(search_path)
        self.config_name = args.config_name or "config"
        self.overrides: list[str] = args.overrides
        self.multirun: bool = args.multirun

    def master(self) -> DictConfig:
        """The configuration with its `hydra` node; of a sweep, the one that all jobs share."""
        return self._load(self.overrides, RunMode.MULTIRUN if self.multirun else RunMode.RUN)

    def jobs(self, master: DictConfig) -> list[DictConfig]:
        """One configuration per job, without the `hydra` node."""
        if not self.multirun:
            return [without_hydra(master)]
        try:
            combinations = self._combinations(master)
        except (TypeError, AttributeError) as error:  # hydra.sweeper=5
            raise UserError(_not_composed(self.overrides, error)) from error
        return [without_hydra(self._load(words, RunMode.RUN)) for words in combinations]

    def _load(self, overrides: list[str], mode: RunMode) -> DictConfig:
        with user_errors(self.loader):
            try:
                return self.loader.load_configuration(self.config_name, overrides, mode)
            except (OmegaConfBaseException, HydraException):
                raise
            except ValueError as error:  # a group set to null
                null = [word.partition("=")[0] for word in overrides if word.endswith("=null")]
                for group in null:
                    options = self.loader.get_group_options(group)
                    raise UserError(f"{group}=null: one of {', '.join(options)}.") from error
                raise UserError(_not_composed(overrides, error)) from error
            except (TypeError, AttributeError, KeyError, RecursionError, OSError) as error:
                # What Hydra's and OmegaConf's insides raise on values that they did not foresee.
                raise UserError(_not_composed(overrides, error)) from error

    def _combinations(self, master: DictConfig) -> Iterator[list[str]]:
        given: Any = master.hydra.sweeper.get("params")
        params = [f"{key}={value}" for key, value in (given or {}).items()]
        with user_errors(self.loader):
            parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(
                [*params, *self.overrides]
            )
            choices = [list(itertools.islice(_values(one), MAX_LISTED_JOBS)) for one in parsed]
        for override, values in zip(parsed, choices, strict=True):
            if len(values) == MAX_LISTED_JOBS:
                raise UserError(f"{_cut(override.input_line)}: a sweep of {MAX_LISTED_JOBS:,} "
                                "values or more is not started.")  # fmt: skip
        number = 1
        for values in choices:
            number *= len(values)
        if number <= MAX_CHECKED_JOBS:
            return (list(combination) for combination in itertools.product(*choices))
        first = [values[0] for values in choices]
        return (
            [*first[:i], value, *first[i + 1 :]]
            for i, values in enumerate(choices)
            for value in values
        )


def refuse_shadowed(folder: Path, configs: Path, name: str) -> None:
    """Of two files with the primary configuration's name Hydra takes the program's, in silence."""
    if (folder / name).is_file() and (configs / name).is_file():
        words = folder / "overrides.yaml"  # beside the configuration of a run
        raise UserError(
            f"--config-dir {folder}: its {name} would be ignored, for the program has one of that "
            "name. "
            + (f"To train again as that run did, give its words again; {words} has them."
               if words.is_file() else "Give it another name, and that by --config-name.")
        )  # fmt: skip


def _values(override: Override) -> Iterable[str]:
    """The overrides that a sweep makes of this one."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or f"{key}={override.get_value_element_as_str()}"]
    if override.is_discrete_sweep():
        return (f"{key}={value}" for value in override.sweep_string_iterator())
    interval: Any = override.value()  # for sweepers that draw from one, such as Optuna's
    return [f"{key}={interval.start}", f"{key}={interval.end}"]


def without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def plain(config: DictConfig) -> dict[str, Any]:
    """As resolved dicts and lists. Raises UserError for `${nope}` and `???`."""
    with user_errors():
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return container  # type: ignore[return-value]


def quoted(text: str) -> str:
    """A string as a value in Hydra's override grammar, in which a quote, and backslashes that
    stand before one, are escaped."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"


@contextlib.contextmanager
def user_errors(loader: ConfigLoaderImpl | None = None) -> Iterator[None]:
    """Turns what Hydra, OmegaConf and the YAML parser raise on wrong input into UserError."""
    try:
        yield
    except MissingConfigException as error:
        raise UserError(_missing(error)) from error
    except OverrideParseException as error:
        if "=" not in str(error.override):
            raise UserError(
                f"{_cut(error.override)}: a training takes key=value words. See --help for the "
                "commands."
            ) from error
        raise UserError(
            f"{_cut(error.override)}: not understood. {_cut(_first_line(error.message))}\n"
            "A value with spaces, commas, brackets or letters beyond ASCII needs quotes of its "
            "own: 'data.root=\"my pictures\"'."
        ) from error
    except SearchPathException as error:
        raise UserError(_first_line(error)) from error
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
        return f"There is no choice for {group} '{_cut(name)}'. {hint}"
    return unknown_name_message(f"choice for {group}", name, error.options)


def _bad_key(error: OmegaConfBaseException, loader: ConfigLoaderImpl | None) -> str:
    key, parent = error.full_key or str(error.key or ""), error.parent_node
    is_unknown = any(words in str(error) for words in UNKNOWN_KEY)
    if not key or not is_unknown or not isinstance(parent, DictConfig):
        return f"{key}: {_first_line(error)}" if key else _short(error)
    prefix = key.rpartition(".")[0] + "." if "." in key else ""
    for name in map(str, parent):
        if prefix and (prefix + name).startswith(key + "."):
            return (
                f"{prefix}{name}: a dot in a name, {name}, is taken for a level in KEY=VALUE. In "
                f"quotes, this sets it: '{prefix[:-1]}={{{name}: \"VALUE\"}}'"
            )
    valid = [prefix + str(k) for k in parent if not str(k).startswith("_")]
    if not prefix and (right := suggestions.meant(key, known_keys())):
        return f"There is no key '{_cut(key)}'. Did you mean {suggestions.with_value(right)}?"
    if not prefix and loader is not None:
        valid += [group for group in loader.list_groups("") if group != "hydra"]
    return unknown_name_message("key", key, valid)


def _not_composed(overrides: Sequence[str], error: Exception) -> str:
    reason = _first_line(error) or type(error).__name__
    return f"{_cut(' '.join(overrides))}: no configuration can be made of this: {_cut(reason)}"


def _cut(text: object) -> str:
    return f"{str(text)[:LONGEST]}{'...' if len(str(text)) > LONGEST else ''}"


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]


def _short(error: object) -> str:
    return "\n".join(_cut(line) for line in str(error).strip().splitlines()[:12])
