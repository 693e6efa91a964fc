"""Search by Optuna: the sweep asks it for a configuration when there is room for a job, and tells
it what became of it. The jobs know nothing of Optuna.

Its journal, search.log in the sweep's folder, holds the trials. A trial belongs to the job with its
words, so that the journal of a killed sweep may be a step ahead of sweep.json, or behind it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.seeds import derive_seed
from trainer.config.space import Dimension, Interval
from trainer.errors import UserError
from trainer.evaluation.measures import MEASURES, score_of
from trainer.runs.read import best_by_of, read_run
from trainer.runs.selection import score
from trainer.runs.sweep_file import FAILED, FINISHED, PRUNED, Job, Sweep, identity
from trainer.sweeps.halving import validations
from trainer.sweeps.plan import extend, folder_name
from trainer.sweeps.search import MAX_REPEATED, Search, is_searched
from trainer.text.values import count

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

JOURNAL = "search.log"


class OptunaSearch(Search):
    """Search by Optuna's TPE sampler; see the module.

    Args:
        space: of the words of the command line.
        settings: of search=optuna.
    """

    def __init__(self, space: Sequence[Dimension], settings: Mapping[str, Any]) -> None:
        super().__init__([])
        self.optuna = imported()
        self.space = space
        self.settings = settings
        self.distributions = {
            one.key: self.distribution(one) for one in space if not one.is_fixed
        }  # fmt: skip
        self.open: dict[int, int] = {}  # job -> its running trial
        self.known: dict[frozenset[str], int] = {}  # words of a job -> its index
        self.pruned: set[int] = set()

    def describe(self) -> str:
        return count(self.settings["trials"], "trial")

    def begin(self, sweep: Sweep, jobs: Sequence[Job]) -> None:
        self.study = self.opened(sweep.folder / JOURNAL)
        self.known = {identity(job.overrides): job.index for job in sweep.jobs}
        added, told = [], set()
        for trial in self.study.get_trials(deepcopy=False):
            words = self.words_of(trial.params)
            index = self.known.get(identity(words)) if words else None
            if trial.state == self.states.RUNNING and words and index is None:
                added.append(self.add(sweep, words))
                index = added[-1].index
            if index is None or index in self.open:
                self.end_quietly(trial)
            elif trial.state == self.states.RUNNING:
                self.open[index] = trial.number
            elif trial.state == self.states.PRUNED:
                self.pruned.add(index)
            elif trial.state == self.states.COMPLETE:
                told.add(index)
        for job in sweep.jobs:
            if job.index not in told:
                self.ended(sweep, job)
        super().begin(sweep, [*(j for j in jobs if j.index not in self.pruned), *added])

    def more(self, sweep: Sweep, running: Collection[int]) -> list[Job]:
        if self.unstarted:
            return super().more(sweep, running)
        for _ in range(MAX_REPEATED):
            if len(sweep.jobs) >= self.settings["trials"]:
                return []
            trial = self.asked()
            words = self.words_of(trial.params) or []
            index = self.known.get(identity(words))
            if index is None:
                job = self.add(sweep, words)
                self.open[job.index] = trial.number
                return [job]
            self.tell(trial.number, sweep, sweep.jobs[index])
        return []  # there are no more

    def to_stop(self, sweep: Sweep, running: Collection[int]) -> list[int]:
        """Jobs whose validation is below the median of the finished ones at the same epoch."""
        return [index for index in running if self.is_to_prune(sweep, sweep.jobs[index])]

    def ended(self, sweep: Sweep, job: Job) -> None:
        if job.index in self.pruned and job.state not in (FINISHED, FAILED):
            epoch = max((row["epoch"] for row in validations(sweep, job)), default=0)
            sweep.give_up(job, f"{PRUNED} {epoch}")
        elif job.state in (FINISHED, FAILED):
            self.pruned.discard(job.index)
            if job.index in self.open:
                self.report(sweep, job)
                self.tell(self.open.pop(job.index), sweep, job)
            elif job.state == FINISHED:  # its trial has ended in another way before
                self.tell_again(sweep, job)

    # --- the study --------------------------------------------------------------------------------

    @property
    def states(self) -> Any:
        return self.optuna.trial.TrialState

    def opened(self, journal: Path) -> optuna.Study:
        """The study in a journal, which only this process uses: it holds the sweep's lock."""
        journals = self.optuna.storages.journal

        class NoLock(journals.JournalFileOpenLock):  # type: ignore[name-defined]
            """In place of one that a killed process would leave behind."""

            def acquire(self) -> bool:
                return True

            def release(self) -> None:
                pass

        mend(journal)
        backend = journals.JournalFileBackend(str(journal), NoLock(str(journal)))
        self.storage = self.optuna.storages.JournalStorage(backend)
        return self.optuna.create_study(
            study_name="search", storage=self.storage, direction="maximize", load_if_exists=True,
            pruner=self.optuna.pruners.MedianPruner(n_warmup_steps=self.settings["min_epochs"]),
        )  # fmt: skip

    def asked(self) -> optuna.Trial:
        """A new trial. Its sampler is seeded by its number: one that is seeded once would repeat
        itself in a process that goes on."""
        number = len(self.study.get_trials(deepcopy=False))
        seed = derive_seed(self.settings["seed"], "search", number) % 2**32
        self.study.sampler = self.optuna.samplers.TPESampler(seed=seed)
        return self.study.ask(self.distributions)

    def trial(self, number: int) -> optuna.Trial:
        study_id = self.storage.get_study_id_from_name("search")
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return self.optuna.trial.Trial(self.study, trial_id)

    def is_to_prune(self, sweep: Sweep, job: Job) -> bool:
        """True at the first time that a job's validation says so, which the journal notes."""
        if not self.settings["prune"] or job.index in self.pruned or job.index not in self.open:
            return False
        if not self.report(sweep, job, prune=True):
            return False
        self.study.tell(self.open.pop(job.index), state=self.states.PRUNED)
        self.pruned.add(job.index)
        return True

    def report(self, sweep: Sweep, job: Job, prune: bool = False) -> bool:
        """Report the validations of a job that are new. True as soon as one of them says that the
        job is to be pruned, which is asked for if `prune`."""
        trial = self.trial(self.open[job.index])
        seen = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        by = best_by_of(sweep.folder_of(job))
        for row in validations(sweep, job):
            worth = score_of(by, row)
            if row["epoch"] not in seen and math.isfinite(worth):
                trial.report(worth, row["epoch"])
                if prune and trial.should_prune():
                    return True
        return False

    def tell(self, number: int, sweep: Sweep, job: Job) -> None:
        """Tell what became of the job of a trial."""
        value = value_of(sweep, job)
        if value is None:
            self.study.tell(number, state=self.states.FAIL)
        else:
            self.study.tell(number, value)

    def tell_again(self, sweep: Sweep, job: Job) -> None:
        params, value = self.params_of(job.overrides), value_of(sweep, job)
        if params is not None and value is not None:
            self.study.add_trial(self.optuna.trial.create_trial(
                params=params, distributions=self.distributions, value=value
            ))  # fmt: skip

    def end_quietly(self, trial: FrozenTrial) -> None:
        """Of a trial that a killed process had not drawn to its end, or that repeats another."""
        if trial.state == self.states.RUNNING:
            self.study.tell(trial.number, state=self.states.FAIL)

    # --- trials and jobs --------------------------------------------------------------------------

    def distribution(self, one: Dimension) -> Any:
        kinds = self.optuna.distributions
        if not isinstance(one, Interval):
            return kinds.CategoricalDistribution(sorted(one.words))
        if one.is_whole:
            return kinds.IntDistribution(int(one.low), int(one.high), log=one.is_log)
        return kinds.FloatDistribution(one.low, one.high, log=one.is_log)

    def words_of(self, params: Mapping[str, Any]) -> list[str] | None:
        """Overrides of a trial's job; None of one that was not drawn to its end."""
        if self.distributions.keys() - params.keys():
            return None
        return [
            one.words[0] if one.is_fixed
            else one.word(params[one.key]) if isinstance(one, Interval) else params[one.key]
            for one in self.space
        ]  # fmt: skip

    def params_of(self, words: Sequence[str]) -> dict[str, Any] | None:
        """Parameters of a job's trial; None of a job that is of no trial."""
        found = {}
        for one in (one for one in self.space if not one.is_fixed):
            own = [word for word in words if word.startswith(f"{one.words[0].partition('=')[0]}=")]
            if not own:
                return None
            text = own[-1].partition("=")[2]
            number = int(text) if isinstance(one, Interval) and one.is_whole else text
            found[one.key] = float(number) if isinstance(one, Interval) else own[-1]
        return found

    def add(self, sweep: Sweep, words: list[str]) -> Job:
        """A new job of the sweep."""
        own = [word for word in words if is_searched(word, self.space)]
        extend(sweep, [words], [folder_name(len(sweep.jobs), own)])
        job = sweep.jobs[-1]
        self.known[identity(words)] = job.index
        return job


def value_of(sweep: Sweep, job: Job) -> float | None:
    """Validation accuracy of a finished job, or what best_by says; the larger the better."""
    if job.state != FINISHED:
        return None
    row = read_run(sweep.folder_of(job))
    return None if row.val_accuracy is None else score(row, row.best_by or MEASURES[0])


def imported() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "search=optuna: needs the package optuna, which is not installed: "
            "pip install 'trainer[search]'. search=random does without."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def mend(journal: Path) -> None:
    """Cut off a last line that a killed process did not write to its end."""
    if journal.is_file():
        whole = journal.read_bytes().rfind(b"\n") + 1
        with open(journal, "r+b") as file:
            file.truncate(whole)
