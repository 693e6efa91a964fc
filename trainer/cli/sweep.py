"""`python -m trainer --multirun key=a,b ...`, and `resume SWEEP`: each job is a command of its own,
in a process of its own.

Imports torch where no wrong word can end the command any more, and the order of what is done then
counts: see `trainer.sweeps.processes`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.cli.asked import Asked, Config, check_with_torch, compose, own_modules
from trainer.config import knobs, start
from trainer.config.changes import FREE_KEYS, is_free
from trainer.config.compose import is_of_sweep, own_part, parse, plain
from trainer.errors import Stopped, UserError
from trainer.runs import out_of_fold, sweep_file
from trainer.runs.folder import claim_folder
from trainer.runs.lock import NAME, locked
from trainer.runs.read import read_runs, runs_and_jobs
from trainer.runs.report.table import table
from trainer.runs.selection import selected
from trainer.runs.sweep_file import FINISHED, Job, Sweep
from trainer.sweeps import plan
from trainer.sweeps import search as searches
from trainer.sweeps.halving import Halving
from trainer.sweeps.optuna_search import OptunaSearch
from trainer.sweeps.search import Search
from trainer.system.paths import shell_path
from trainer.text.values import count

if TYPE_CHECKING:
    from trainer.sweeps.driver import Launcher

ROOT = Path(__file__).resolve().parents[2]
# Of Hydra's node the words that say where a sweep lies, which its jobs are told in another way.
PLACES = ("hydra.sweep.", "hydra.run.dir", "hydra.mode")
FREE_OF_SWEEPS = ("jobs", "launcher")  # of a sweep that is resumed: how many at a time, and where

Resume = Callable[[Path, dict[str, str]], int]


def begin(asked: Asked) -> int:
    """Run a new sweep, or go on with the one that sweep.name names. Returns the exit code."""
    name = asked.master.sweep.name
    folder = Path("outputs") / name if name else None
    if folder is not None and "hydra.sweep.dir" in asked.typed:
        raise UserError(f"sweep.name={name} with hydra.sweep.dir: one of the two.")
    search = search_of(asked)
    folders = asked.composer.job_folders(asked.master, search.planned)
    if folder is not None and sweep_file.is_own(folder):
        return again(folder, asked, search, folders)
    now = checked(asked)
    folder = claim_folder(asked.master, asked.args.overrides, "sweep", folder)
    try:
        with locked(folder):
            words = [*asked.args.flags, *asked.args.overrides]
            sweep = Sweep(folder, folder.name, words, now.pop("versions"), now)
            plan.extend(sweep, search.planned, folders)
            sweep.save()
            print(f"{search.describe()} in {shell_path(folder)}")
            return run(sweep, asked, search)
    finally:
        if not (folder / sweep_file.NAME).exists():
            (folder / NAME).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def again(folder: Path, asked: Asked, search: Search, folders: Sequence[str] | None) -> int:
    """Go on with a sweep whose command was given again, perhaps with more values."""
    with locked(folder):
        sweep = sweep_file.load(folder)
        tell_changes(sweep, checked(asked), force=False)
        added = plan.extend(sweep, search.planned, folders)
        sweep.command = [*asked.args.flags, *asked.args.overrides]
        print(f"{shell_path(folder)}: going on with {count(len(sweep.jobs), 'job')}"
              + (f", {added} of them new" if added else ""))  # fmt: skip
        return run(sweep, asked, search)


def resume(
    folder: Path, values: Mapping[str, str], retry_failed: bool = False, force: bool = False
) -> int:
    """Start what a sweep is missing, and go on with what was interrupted. Returns the exit code.

    Args:
        values: changed keys with their values as typed, of those that change no result.
        retry_failed: start those that failed again.
        force: also if the configuration or the data have changed.
    """
    if others := [key for key in values if not is_free(key) and key not in FREE_OF_SWEEPS]:
        raise UserError(f"{others[0]}={values[others[0]]}: may not change when a sweep is resumed; "
                        f"these may: {', '.join((*FREE_OF_SWEEPS, *FREE_KEYS))}.")  # fmt: skip
    own = [f"{key}={value}" for key, value in values.items() if key in FREE_OF_SWEEPS]
    values = {key: value for key, value in values.items() if key not in FREE_OF_SWEEPS}
    with locked(folder):
        sweep = sweep_file.load(folder)
        asked = composed_of_file(sweep, values, own)
        search = search_of(asked)
        tell_changes(sweep, checked(asked), force)
        return run(sweep, asked, search, values, retry_failed)


def composed_of_file(sweep: Sweep, values: Mapping[str, str], own: Sequence[str]) -> Asked:
    """What a sweep's file asks for: somebody else's words, perhaps, so nothing of Hydra's own node
    is taken from it, and of classes only this program's, and those of modules that are trusted.
    Raises UserError.

    Args:
        values: changed keys of the jobs.
        own: changed words of the sweep itself.
    """
    file = sweep.folder / sweep_file.NAME
    words = [word for word in sweep.command if not word.lstrip("+~").startswith(PLACES)]
    if hydras := [word for word in words if word.lstrip("+~").startswith("hydra")]:
        raise UserError(f"{hydras[0]}: is not taken from {file}. Give the sweep's own command "
                        f"again, with sweep.name={sweep.name}.")  # fmt: skip
    args = parse(["--multirun", *(w for w in words if w not in ("--multirun", "-m")), *own])
    if args.config_name or args.config_path:  # which may name packages to import
        raise UserError(
            f"{file}: --config-name and --config-path are not taken from a file. Give the sweep's "
            f"own command again, with sweep.name={sweep.name}."
        )
    asked = compose(args)
    sweep.refresh()  # what the folders say, not the file
    jobs = [job.overrides for job in sweep.jobs if job.state != FINISHED]
    if others := [word for overrides in jobs for word in overrides if is_of_sweep(word)]:
        raise UserError(f"{file}: {others[0]:.200} is no override of a training.")
    whole = [asked.composer.job(overrides) for overrides in jobs]
    from trainer.config.stored import check_group, trusted

    for config in (asked.master, *whole):
        start.refuse_objects(config, file)
    for job in (*asked.jobs, *(plain(own_part(config)) for config in whole)):
        knobs.check(job)
        for group in knobs.GROUPS:
            check_group(group, job[group], trusted(values), str(file))
    return asked


def checked(asked: Asked) -> dict[str, Any]:
    """Check the jobs with torch, in a process that can be forked afterwards. Returns what the
    results of the sweep depend on beside its overrides."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of threads that share cores with others
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    from trainer.sweeps import launchers, processes, room
    from trainer.system.versions import versions

    is_local = asked.master.launcher == "local"
    processes.warm_up(is_local and any(job["compile"] != "none" for job in asked.jobs))
    launchers.check(asked.master.launcher)
    jobs = [launchers.checked_here(asked.master.launcher, job) for job in asked.jobs]
    room.check_gpus(jobs)
    datasets = check_with_torch(jobs, asked.typed, before_forks=True)
    begun_with = plan.beginning(ROOT, asked.jobs, datasets)
    space = asked.composer.space(asked.master)
    begun_with["config"] |= searches.settings_text(plain(asked.master.search), space)
    return {"versions": versions(), **begun_with}


def search_of(asked: Asked) -> Search:
    """The search that a sweep asks for, a grid if it says nothing else. Raises UserError."""
    space, settings = asked.composer.space(asked.master), plain(asked.master.search)
    searches.check(settings, space)
    if settings["strategy"] == "optuna":
        if "hydra.sweep.subdir" in asked.typed:
            raise UserError("hydra.sweep.subdir with search=optuna: leave it out; each job has a "
                            "folder of its own, named by its values.")  # fmt: skip
        return OptunaSearch(space, settings)
    if trials := settings.get("trials"):
        planned = searches.drawn(space, trials, settings["seed"])
    else:
        planned = searches.grid(space)
    if settings["strategy"] == "halving":
        return Halving(planned, settings, asked.jobs)
    return Search(planned)


def tell_changes(sweep: Sweep, now: dict[str, Any], force: bool) -> None:
    """Raises UserError unless forced, where a result of the sweep would be of another training."""
    lines = list(plan.changes(sweep, now.pop("versions"), now))
    if not lines:
        return
    told = f"{sweep.folder}: changed since the sweep was begun:\n" + "\n".join(
        f"  {line}" for line in lines
    )
    if not force and any(line.startswith(("configuration", "data")) for line in lines):
        raise UserError(
            f"{told}\nIts jobs would no longer compare like with like. Give the old values, or "
            "another sweep.name for a sweep of its own; `python -m trainer resume "
            f"{shell_path(sweep.folder)} --force` goes on with the jobs that it has all the same."
        )
    print(told)


def run(
    sweep: Sweep,
    asked: Asked,
    search: Search,
    values: Mapping[str, str] | None = None,
    retry_failed: bool = False,
) -> int:
    """Run the jobs of a sweep that are not done, then the tests of those that validation selected.
    Returns the exit code."""
    from trainer.sweeps import room
    from trainer.sweeps.driver import run_jobs
    from trainer.sweeps.elsewhere import Needs
    from trainer.sweeps.launchers import launcher_of
    from trainer.sweeps.progress import Reporter

    values = {"trust": "[]", **(values or {})}
    search.begin(sweep, sweep.to_do(retry_failed))
    extra = [f"{key}={value}" for key, value in values.items() if key != "trust"]
    hydras = [w for w in asked.args.overrides
              if is_of_sweep(w) and w.lstrip("+~").startswith("hydra")
              and not w.lstrip("+~").startswith(PLACES)]  # fmt: skip
    flags = [flag for flag in asked.args.flags if flag not in ("--multirun", "-m")]

    def command(job: Job) -> list[str]:
        where = f"hydra.run.dir={sweep.folder_of(job).absolute()}"
        return [*flags, *job.overrides, *extra, *search.words(job), *hydras, where]

    def config_of(job: Job) -> Config:
        return plain(own_part(asked.composer.job([*job.overrides, *extra])))

    on_gpus = all(job["device"] in ("auto", "cuda") for job in asked.jobs)
    is_here = asked.master.launcher == "local"
    space = room.of(asked.master.jobs, config_of, on_gpus, is_here)

    def needs(folder: Path) -> Needs:
        job = next(job for job in sweep.jobs if sweep.folder_of(job).samefile(folder))
        return Needs(space.threads_of(job), config_of(job)["device"])

    launcher = launcher_of(asked.master.launcher, sweep.folder, needs)
    modules = own_modules(asked.jobs)
    try:
        run_jobs(sweep, search, command, launcher, space, Reporter(sweep.jobs))
        tested = True
        if asked.jobs[0]["test"] == "selected":
            if number := sum(job.is_missing for job in sweep.jobs):
                print(f"the test split is read once {count(number, 'more job')} ended: they may "
                      "change the selection")  # fmt: skip
            else:
                tested = test_selected(sweep.folder, modules, in_process(launcher))
    except Stopped:
        report(sweep.folder, modules)
        raise
    return report(sweep.folder, modules) or int(not tested)


def in_process(launcher: Launcher) -> Resume:
    """Resumes a run in a process of its own."""
    from trainer.sweeps.driver import run_command

    def resumed(folder: Path, values: dict[str, str]) -> int:
        words = ["resume", str(folder), *(f"{key}={value}" for key, value in values.items())]
        return run_command(launcher, words, folder)

    return resumed


def test_selected(folder: Path, modules: Sequence[str], resumed: Resume) -> bool:
    """Read the test split for the runs of a sweep that validation has selected. False: some of it
    failed.

    Args:
        modules: of the user's own that the runs may name.
    """
    done = True
    values = {"test": "all", **({"trust": f"[{','.join(modules)}]"} if modules else {})}
    chosen = [row for one in selected(read_runs(folder)) for row in one.rows]
    for row in (row for row in chosen if row.test_accuracy is None):
        print(f"selected by validation: {row.folder.relative_to(folder)}: reading its test split")
        done &= resumed(row.folder, values) == 0
    return done


def report(folder: Path, modules: Sequence[str] = ()) -> int:
    """Print the table of all jobs, the failed ones with their reason, and the next commands, which
    trust these modules. Returns 1 if a job is not finished, and no search has stopped it."""
    rows = runs_and_jobs(folder)
    print(f"\n{table(rows, folder)}")
    if any(row.fold is not None for row in rows) and (line := out_of_fold.write(folder, rows)):
        print(line)
    print(f"\nsweep folder  {shell_path(folder)}")
    print(f"as a page     python -m trainer report {shell_path(folder)}")
    print(f"see curves    tensorboard --logdir {shell_path(folder)}")
    open_states = {row.status for row in rows if not row.is_over}
    if sweep_file.is_own(folder) and open_states:
        words = " --retry-failed" if "failed" in open_states else ""
        words += f" trust=[{','.join(modules)}]" if modules else ""
        print(f"go on         python -m trainer resume {shell_path(folder)}{words}")
    return int(bool(open_states) or not rows)
