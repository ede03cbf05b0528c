"""The studies of a store as a panel sees them: the one that is running, the one that is shown, and all others."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import joblib
import pandas as pd
import torch

from rlm.config import READ_AS_IT_IS, Plan, StudyConfig
from rlm.errors import InputError
from rlm.explorer.commands import Swept, read_sweep, start_plan, start_study, start_sweep
from rlm.explorer.probe import describe_data
from rlm.external.stored import TASK, FunctionConfig
from rlm.runtime.process import Child
from rlm.store.edit import name_study
from rlm.store.read import KINDS, Progress, list_data, read_progress

SHOWN = KINDS | {TASK: FunctionConfig}  # studies that can be shown; those of KINDS can also be run


class Session:
    """The studies of a store, for a panel with a table, or with data that a config names."""

    def __init__(self, db: Path, table: pd.DataFrame | None) -> None:
        self.db, self._table = db, table
        self.child: Child | None = None  # the study that is running
        self.progress: Progress | None = None  # of that study, or else of the one that is shown
        self.problem, self.has_ended = "", False
        self.notices: list[str] = []
        self.swept: Swept | None = None  # the last sweep
        self.planned: tuple[StudyConfig, Plan, str] | None = None  # what a study of these settings takes
        self._planner: Child | None = None  # which estimates that
        self._vary = ""  # what a sweep that is running varies
        self._starts = 0  # of studies of this store, before the one that is running
        self._fingerprints: dict[tuple[int, str], str | None] = {}  # of one dataset, by how it is read
        self._read_at: tuple[object, ...] = ()
        self._read_last: Progress | None = None

    @property
    def finished(self) -> tuple[int, tuple[object, ...]] | None:
        """The number of the study, and its finished runs with its name, tags and note, if there are any runs."""
        runs = 0 if self.progress is None else int(self.progress.arms["finished"].sum())
        return (self.progress.study, (runs, *self.progress.about.values())) if self.progress and runs else None

    def name(self, about: Mapping[str, str]) -> None:
        """Give the study that is shown a name, tags or a note."""
        if self.progress is None:
            return
        try:
            name_study(self.db, self.progress.study, about)
        except InputError as error:
            self.problem = str(error)
        self._update()

    @property
    def state(self) -> tuple[object, ...]:
        """All that can change; an item that is the same object has not changed."""
        return self.child, self.progress, self.problem, self.notices, self.has_ended, self.swept, self.planned

    def start(self, config: StudyConfig, plan: Plan, vary: str = "") -> None:
        """Run a study, or a sweep, in the background; runs that the store has are not repeated."""
        if self.child is not None:
            raise InputError("expected no study that runs already, found one; stop it first, or wait for it")
        latest = self._read()
        self._starts, self._vary = latest.start if latest else 0, vary
        self.progress, self.problem, self.notices, self.has_ended = None, "", [], False
        try:
            sweep = partial(start_sweep, vary=vary)
            self.child = (sweep if vary else start_study)(config, plan, db=self.db, table=self._table)
        except (InputError, OSError) as error:
            self.problem = str(error)

    def plan(self, config: StudyConfig, plan: Plan) -> None:
        """Start to estimate the pairs, minutes and memory of a study."""
        if self._planner is not None:
            self._planner.stop()
        self._planner = None  # its end tells nothing of this estimate
        try:
            self._planner = start_plan(config, plan, self.db, self._table)
            said = "Estimating, by a study of these settings in the store or by five pairs …"
        except (InputError, OSError) as error:
            said = str(error)
        self.planned = config, plan, said

    def release(self) -> Child | None:
        """Return the study that is running, for another panel, and stop an estimate."""
        if self._planner is not None:
            self._planner.stop()
        study, self.child = self.child, None
        return study

    def stop(self) -> None:
        """Stop the study that is running, if there is one."""
        if self.child is not None:
            self.child.stop()
            self.child = None
            self._update()

    def open(self, study: int) -> None:
        """Show a study of the store."""
        self.progress, self.has_ended, self.problem = read_progress(self.db, study, SHOWN), False, ""

    def refresh(self) -> None:
        """Read what has become of the study, and of an estimate, since the last call."""
        if self._planner is not None and self.planned is not None and not self._planner.is_running:
            self.planned = *self.planned[:2], self._planner.problem or self._planner.printed.strip()
            self._planner = None
        if self.child is not None:
            is_over = not self.child.is_running  # asked before the last warnings are read
            warnings = self.child.warnings
            self.notices = self.notices if warnings == self.notices else warnings
            if is_over:
                self.problem = self.child.problem or self.problem
                self.swept = (not self.problem and read_sweep(self.child)) or self.swept
                self.child, self.has_ended = None, not self.problem
        self._update()

    @property
    def processes(self) -> int:
        """The number of processes of a study like the one that is shown; a GPU serves one."""
        knobs = self.progress and self.progress.knobs
        return 1 if knobs and knobs[0].device != "cpu" and torch.cuda.is_available() else joblib.effective_n_jobs(-1)

    @property
    def seconds_left(self) -> pd.Series:
        """The seconds that each arm still takes, by the mean time of its runs; missing before the first."""
        if self.progress is None or self.child is None:
            return pd.Series(dtype=float)
        arms = self.progress.arms
        return arms["seconds"] * (arms["planned"] - arms["finished"]) / self.processes

    def explain(self, is_ready: bool) -> str:
        """Write the state of the study in words; `is_ready` means that the settings for another one are valid."""
        if self.problem:
            return self.problem
        if self.progress is None and self.child is not None:
            return "Reading the data …"
        if self.progress is None:
            return "Ready." if is_ready else "Not ready: a knob has an invalid value; its message tells why."
        arms = self.progress.arms
        done = f"{arms['finished'].sum()} of {arms['planned'].sum()} runs"
        if self.child is not None and self._vary:
            return f"Racing {self._vary}: {done} of this step are finished."
        if self.progress.is_complete:
            return f"Finished: {done}."
        if self.child is not None:
            left = spell_time_left(float(self.seconds_left.sum(skipna=False)))
            return f"Training: {', '.join(filter(None, [f'{done} are finished', left]))}."
        if self.has_ended:
            return f"Finished after {done}: the interval is narrow enough."
        how = "Resume" if self.progress.knobs else "The same call of rlm.judge"
        return f"Stopped: {done} are kept. {how} continues it, unless another notebook or terminal trains it now."

    def open_last(self, config: StudyConfig, is_any: bool) -> None:
        """Show the study that was started last: any, or one of the data of the panel."""
        if is_any:
            self.progress = read_progress(self.db, None, SHOWN)
            return
        found = (number for number, own, data in list_data(self.db) if self.is_of(own, data, config))
        last = next(found, None)
        self.progress = None if last is None else read_progress(self.db, last)

    def is_of(self, own: StudyConfig, data: str, config: StudyConfig) -> bool:
        """Return True if a study is of the panel's table, or else of the data of a config, as they are now."""
        is_read_alike = config.reading in (own.reading, READ_AS_IT_IS)
        if self._table is None and not (own.dataset == config.dataset and is_read_alike):
            return False
        return data == self._fingerprint(own)

    def _update(self) -> None:
        if self.child is None and self.progress is not None:
            self.progress = self._read(self.progress.study)
        elif self.child is not None or self.has_ended:
            found = self._read()
            self.progress = found if found and found.start > self._starts else None

    def _read(self, study: int | None = None) -> Progress | None:
        """Read how far a study is, see `read_progress`; the same object until something is written."""
        now = study, _last_write(self.db)
        if now != self._read_at:
            self._read_last = read_progress(self.db, study, KINDS if study is None else SHOWN)
            self._read_at = now
        return self._read_last

    def _fingerprint(self, config: StudyConfig) -> str | None:
        """Return the fingerprint of the panel's table, or else of the data of a config; None if they are unusable."""
        key = config.max_tokens, config.tokenizer, config.reading.model_dump_json()
        if key not in self._fingerprints:
            try:
                self._fingerprints[key] = describe_data(config, self._table)["fingerprint"]
            except (InputError, OSError):  # training on them reports it
                self._fingerprints[key] = None
        return self._fingerprints[key]


def _last_write(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def spell_time_left(seconds: float) -> str:
    """Write how long something takes, rounded; empty if that is not known."""
    if math.isnan(seconds):
        return ""
    return f"about {seconds:.0f} s left" if seconds < 100 else f"about {seconds / 60:.0f} min left"


def spell_error(error: Exception) -> str:
    """Write an error as the panel shows it."""
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
