"""Configuration that a command line asks for, composed ahead of Hydra's own start, so that wrong
input ends with one message and no folder.

Hydra itself exits with 1 on composition errors, makes the run's folder before any code of ours
runs, and overwrites an existing run's `.hydra/`. Hydra's private names are in
`hydra_internals`.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from trainer.config import knobs, suggestions
from trainer.config.folds import as_sweep, is_every
from trainer.config.hydra_errors import LONGEST, cut, not_composed, user_errors
from trainer.config.hydra_internals import (
    ConfigLoaderImpl,
    create_config_search_path,
    get_args_parser,
)
from trainer.config.space import Dimension, dimension, value_at
from trainer.errors import UserError

SWEEP = re.compile(r"['\"]|(choice|range|interval|glob|shuffle|sort|tag)\(")
LONGEST_WORD = 4096  # characters; Hydra reads a list of as many in some four seconds
MAX_LISTED_JOBS = 10_000

# A sweep of more jobs is checked value by value instead of combination by combination.
MAX_CHECKED_JOBS = 200


def parse(argv: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides. argparse ends the process with 2 on unknown flags."""
    parser = get_args_parser()
    parser.prog = "trainer"

    def refuse(message: str) -> NoReturn:
        hint = suggestions.of_option(argv, knobs.known_keys())
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
    args.overrides, has_folds = as_sweep(args.overrides)
    if has_folds and (args.cfg or args.info):
        raise UserError("folds=K is a sweep: it goes with a training, not with --cfg or --info.")
    args.multirun = args.multirun or has_folds
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


def as_typed(word: str, multirun: bool) -> str:
    """A word KEY=VALUE in which a value that is a text, such as a path, is in quotes, so that
    Hydra's grammar takes 2024_01_15 for no number and `on` for no truth, and ~/photos or names
    with blanks, commas and brackets are as they were typed. A sweep's commas go on to divide."""
    name, equals, value = word.partition("=")
    if not equals or not knobs.is_text(name.lstrip("+")) or value in ("", "null", "???"):
        return word
    if value[0] in "'\"" and len(value) > 1 and value[-1] == value[0]:
        return word
    if not multirun:
        return f"{name}={quoted(value)}"
    if name.lstrip("+") == "data.group" and not SWEEP.match(value):  # has brackets of its own
        return f"{name}={quoted(value)}"
    if re.search(r"[()\[\]{}'\"]", value):
        return word
    return f"{name}={','.join(quoted(one.strip()) for one in value.split(','))}"


class _Loader(ConfigLoaderImpl):
    """Loader that hands out a configuration that was composed before, once, where Hydra would
    compose the same words again."""

    composed: DictConfig | None = None

    def load_configuration(self, *args: Any, **options: Any) -> DictConfig:
        composed, self.composed = self.composed, None
        return super().load_configuration(*args, **options) if composed is None else composed


class Composer:
    """Composes what a command line asks for, without running anything."""

    def __init__(self, args: argparse.Namespace) -> None:
        version.setbase("1.3")
        setup_globals()
        configs = Path(args.config_path).resolve() if args.config_path else knobs.CONFIGS
        search_path = create_config_search_path(str(configs))
        if args.config_dir:
            folder = os.path.abspath(args.config_dir)
            if not os.path.isdir(folder):
                raise UserError(f"--config-dir {args.config_dir}: there is no such folder.")
            refuse_shadowed(Path(folder), configs, f"{args.config_name or 'config'}.yaml")
            search_path.prepend("command-line", f"file://{folder}", SearchPathQuery("schema", None))
        self.loader = _Loader(search_path)
        self.config_name = args.config_name or "config"
        self.overrides: list[str] = args.overrides
        self.multirun: bool = args.multirun

    def master(self) -> DictConfig:
        """The configuration with its `hydra` node; of a sweep, the one that all jobs share."""
        mode = RunMode.MULTIRUN if self.multirun else RunMode.RUN
        master = self._load(self.overrides, mode)
        if master.hydra.mode not in (None, mode):
            raise UserError("hydra.mode: is for --multirun to say; leave the key out.")
        return master

    def jobs(self, master: DictConfig) -> list[DictConfig]:
        """One configuration per job, without the `hydra` node and the keys of sweeps. Of a sweep of
        more than MAX_CHECKED_JOBS, enough of them to have each value in one."""
        if not self.multirun:
            return [own_part(master)]
        return [own_part(self._load(words, RunMode.RUN)) for words in self._checked(master)]

    def job(self, words: list[str]) -> DictConfig:
        """Configuration of one job of a sweep with Hydra's node, by its overrides."""
        return self._load(words, RunMode.RUN)

    def job_folders(self, master: DictConfig, jobs: Sequence[list[str]]) -> list[str] | None:
        """Names of the jobs' folders where hydra.sweep.subdir was typed; else None."""
        if not any(word.lstrip("+").startswith("hydra.sweep.subdir=") for word in self.overrides):
            return None
        own = [word for word in self.overrides if word.lstrip("+").startswith("hydra.")]
        names = []
        for number, words in enumerate(jobs):
            with user_errors(self.loader):
                config = self.loader.load_sweep_config(master, [*own, *words])
                with open_dict(config):
                    config.hydra.job.num, config.hydra.job.id = number, str(number)
                names.append(str(config.hydra.sweep.subdir))
        return names

    def space(self, master: DictConfig) -> list[Dimension]:
        """What each word of the command line and of hydra.sweeper.params may be, without those of
        Hydra and of sweeps. Raises UserError."""
        return [one for one in self._space(master) if not is_of_sweep(one.typed)]

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
                raise UserError(not_composed(overrides, error)) from error
            except (TypeError, AttributeError, KeyError, RecursionError, OSError) as error:
                # What Hydra's and OmegaConf's insides raise on values that they did not foresee.
                raise UserError(not_composed(overrides, error)) from error

    def _space(self, master: DictConfig) -> list[Dimension]:
        try:
            return self._parsed(master)
        except (TypeError, AttributeError) as error:  # hydra.sweeper=5
            raise UserError(not_composed(self.overrides, error)) from error

    def _parsed(self, master: DictConfig) -> list[Dimension]:
        given: Any = master.hydra.sweeper.get("params")
        typed = {word.lstrip("+").partition("=")[0] for word in self.overrides}
        params = [f"{key}={value}" for key, value in (given or {}).items() if key not in typed]
        with user_errors(self.loader):
            parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(
                [*params, *self.overrides]
            )
            words = [list(itertools.islice(_values(one), MAX_LISTED_JOBS)) for one in parsed]
        space = [
            dimension(one, own, value_at(master, one.key_or_group))
            for one, own in zip(parsed, words, strict=True)
        ]
        for one in space:
            if len(one.words) == MAX_LISTED_JOBS:
                raise UserError(f"{cut(one.typed)}: a sweep of {MAX_LISTED_JOBS:,} "
                                "values or more is not started.")  # fmt: skip
            if len(one.words) > 1 and is_of_sweep(one.typed):
                key = one.typed.partition("=")[0]
                raise UserError(f"{cut(one.typed)}: cannot be swept; it is one value of the whole "
                                f"sweep. Give {key} one value.")  # fmt: skip
        return space

    def _checked(self, master: DictConfig) -> Iterator[list[str]]:
        """Combinations that are composed and checked before anything begins."""
        choices = [one.words for one in self._space(master)]
        if master.search.strategy == "grid":
            check_size(choices)
        shared = [values[0] for values in choices if len(values) == 1]
        choices = [values[:1] if is_every(values, shared) else values for values in choices]
        if math.prod(map(len, choices)) <= MAX_CHECKED_JOBS:
            return (list(combination) for combination in itertools.product(*choices))
        first = [values[0] for values in choices]
        return (
            [*first[:i], value, *first[i + 1 :]]
            for i, values in enumerate(choices)
            for value in values
        )


def check_size(choices: Sequence[Sequence[str]]) -> None:
    """Raises UserError where there are too many combinations of the values."""
    if (number := math.prod(map(len, choices))) > MAX_LISTED_JOBS:
        raise UserError(f"{number:,} combinations: a sweep of more than {MAX_LISTED_JOBS:,} jobs "
                        "is not started.")  # fmt: skip


def one_job(args: argparse.Namespace) -> dict[str, Any]:
    """The checked configuration of a single training. Raises UserError."""
    composer = Composer(args)
    config = plain(composer.jobs(composer.master())[0])
    knobs.check(config)
    return config


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
    return ()  # an interval, which is no list


def own_part(config: DictConfig) -> DictConfig:
    """Configuration of a training: without Hydra's node and the keys of sweeps."""
    others = ("hydra", *knobs.OF_SWEEPS)
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in others])


def is_of_sweep(word: str) -> bool:
    """True for an override of Hydra's node, or of a key of sweeps."""
    key = re.split(r"[.=@]", word.lstrip("+~"), maxsplit=1)[0]
    return key == "hydra" or key in knobs.OF_SWEEPS


def plain(config: DictConfig) -> dict[str, Any]:
    """As resolved dicts and lists. Raises UserError for `${nope}` and `???`."""
    with user_errors():
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def quoted(text: str) -> str:
    """A string as a value in Hydra's override grammar, in which a quote, and backslashes that
    stand before one, are escaped."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"
