"""The explorer: turn the knobs of a study, run it, watch it, stop it, go on, look inside."""

import operator
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from html import escape
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any

import joblib
import pandas as pd
import torch

from rlm.config import PRESETS, READ_AS_IT_IS, Plan, ReadOptions, StudyConfig
from rlm.data.corpus import index_corpus
from rlm.errors import InputError
from rlm.explorer.panel import OWN, Panel, spell_time_left
from rlm.explorer.probe import Inside, train_inside
from rlm.explorer.tabs import paragraph
from rlm.explorer.watched import run_watched
from rlm.report.view import Exported, View, about_data, compare_studies, export, look, warm_up
from rlm.runtime.process import Background, Failure, Notice, ask
from rlm.store.file import check_file
from rlm.store.read import Progress, list_studies, read_asked, read_progress
from rlm.study import RESULTS, YOUR_TABLE, load_corpus

TICK, IDLE_TICK = 0.2, 1.0  # seconds between looks at the store
REST = 2  # while a study runs, pictures are drawn a third of the time: they are drawn by a core that could train
_OPEN: dict[Path, "Explorer"] = {}


class Explorer:
    """
    A panel to explore studies; it shows itself as the last line of a notebook's cell.

    Studies run in processes of their own, and every finished block of seeds is in the store. A study that was stopped,
    or whose notebook was closed, goes on from there.

    Parameters
    ----------
    data
        Text pairs or triplets, see `rlm.index_corpus`, or the name of a dataset or path of a file, see `rlm.load`; by
        default those of the study that was started last.
    db
        Store, see `rlm.run_study`; by default one that is deleted when Python ends. The panel opens with the study of
        these data that was started last.
    reading
        How to read a file, see `rlm.data.ReadOptions`.

    Raises
    ------
    InputError
        If `db` is no store that can be used.
    pydantic.ValidationError
        If `reading` has other fields or values than `rlm.data.ReadOptions` has.
    """

    def __init__(
        self,
        data: pd.DataFrame | str | Path | None = None,
        db: Path | str | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        self._data = data if isinstance(data, pd.DataFrame) else None
        self._folder = tempfile.TemporaryDirectory(prefix="rlm-") if db is None else None
        self.db = Path(f"{self._folder.name}/studies.db" if db is None else check_file(db)).resolve()
        self._fingerprints: dict[tuple[int, str], str | None] = {}  # of one dataset, by how it is read
        config, plan = PRESETS["quick look"]
        named = YOUR_TABLE if self._data is not None else str(data or config.dataset)
        config = config.model_copy(update={"dataset": named, "reading": ReadOptions(**(reading or {}))})
        self._progress: Progress | None = self._last_study(config, is_any=data is None and reading is None)
        if self._progress is not None:
            config, plan = self._progress.config, self._progress.plan
        self._valid = config, plan
        self._problem, self._notices, self._has_ended = "", [], False
        self._read_at: tuple[object, ...] = ()
        self._read_last: Progress | None = None
        self._drawn: tuple[object, ...] = ()
        self._view: View | None = None
        self._shown: Progress | None = None  # of what is in view
        self._data_of: dict[int, Mapping[str, str] | None] = {}  # by study, see `about_data`
        self._looked_for: tuple[int, int] | None = None
        self._looked_at = self._looks_again = 0.0
        self._looking: Future[Any] | None = None  # one at a time
        self._comparing: Future[Any] | None = None  # the last that was asked for
        self._is_drawing = False
        self._starts = 0
        self._inside: Background | None = None
        earlier = _OPEN.pop(self.db, None)  # the same cell, run again
        self._study = earlier.close() if earlier else None
        _OPEN[self.db] = self
        ask(warm_up)  # while the panel is read: the first picture is there when the first seeds are
        self._closed, self._lock = Event(), RLock()
        hidden = ["dataset", "reading"] if self._data is not None else []
        self._panel = Panel(
            config, plan, hidden, on_change=self._draw, on_choice=self._compare, on_train=self._train_inside
        )
        self._panel.preset.observe(self._choose_preset, "value")
        self._panel.study.observe(self._choose_study, "value")
        self._panel.run.on_click(lambda _: self.run())
        self._panel.stop.on_click(lambda _: self.stop())
        self._panel.export.on_click(lambda _: self._export())
        self._draw()
        Thread(target=self._watch, name="rlm explorer", daemon=True).start()

    @property
    def config(self) -> StudyConfig:
        """What is set on the panel."""
        return self._settings()[0]

    @property
    def results(self) -> pd.DataFrame:
        """The runs of the study that is shown, see `rlm.run_study`; empty at first."""
        return pd.DataFrame(columns=RESULTS) if self._view is None else self._view.results

    @property
    def words(self) -> str:
        """What the study that is shown supports."""
        if self._view is None:
            return "Nothing has been run yet: press Run, and when seeds have arrived run this cell again."
        return " ".join(text for _, text in self._view.words) or self._view.headline

    def set(self, **settings: Any) -> None:  # noqa: ANN401
        """
        Turn knobs from code.

        Parameters
        ----------
        settings
            Fields of `rlm.StudyConfig`, seeds, until.

        Raises
        ------
        pydantic.ValidationError
            If there is no such field, or its value is invalid; nothing is set then.
        """
        config, plan = self._valid
        mine = {name: settings.pop(name) for name in Plan.model_fields if name in settings}
        config = StudyConfig.model_validate(dict(config) | settings)
        self._panel.knobs.show(config, Plan.model_validate(dict(plan) | mine))

    def run(self) -> None:
        """
        Run the study that is set, in the background. What the store has of it is not run again.

        Raises
        ------
        InputError
            If a setting is invalid, or a study runs already.
        """
        config, plan = self._settings()
        with self._lock:
            if self._study is not None:
                raise InputError("expected no study that runs already, found one; stop it first, or wait for it")
            latest = read_progress(self.db)
            self._starts = latest.start if latest else 0
            self._progress, self._problem, self._notices, self._has_ended = None, "", [], False
            self._study = Background(run_watched, config, plan, self.db, self._data)
            self._draw()

    def stop(self) -> None:
        """End the study now. What is finished is kept, and `run` goes on from there."""
        with self._lock:
            if self._study is not None:
                self._study.stop()
                self._study = None
                self._read()
                self._draw()

    def wait(self) -> None:
        """Wait until the study that runs has ended, and all of it is shown, or the panel is closed."""
        while not self._closed.wait(TICK):
            with self._lock:  # or the end of a study were seen before its last runs
                is_shown = not self._finished or self._looked_for == self._finished
                if self._study is None and self._looking is None and is_shown:
                    return

    def export(self, folder: Path | str | None = None) -> Path:
        """
        Write what is shown: one HTML file, the config, and the line of code that repeats it.

        Parameters
        ----------
        folder
            Made if it is not there; by default beside the store, or in the working directory for a store that is
            deleted when Python ends, and named after store and study.

        Returns
        -------
        pathlib.Path
            The HTML file.

        Raises
        ------
        InputError
            If nothing is finished.
        OSError
            If the files cannot be written.
        """
        if self._view is None:
            raise InputError("expected a finished run to write of, found none; run the study")
        return ask(export, *self._to_export(folder)).result().page

    def close(self) -> Background | None:
        """
        Let go of the panel.

        Returns
        -------
        Background or None
            The study that still runs, for another panel to take over.
        """
        with self._lock:
            self._closed.set()
            if self._inside is not None:
                self._inside.stop()
            study, self._study = self._study, None
            return study

    def _repr_mimebundle_(self, **options: Any) -> Any:  # noqa: ANN401
        return self._panel.widget._repr_mimebundle_(**options)

    @property
    def _finished(self) -> tuple[int, int] | None:
        """The study and its finished runs, if there are any."""
        runs = 0 if self._progress is None else int(self._progress.arms["finished"].sum())
        return (self._progress.study, runs) if runs else None

    def _settings(self) -> tuple[StudyConfig, Plan]:
        found, wrong = self._panel.knobs.read()
        if found is None:
            raise InputError(wrong)
        return found[0], found[1]

    def _watch(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                try:
                    self._look()
                except Exception as error:  # a watcher that died would leave a panel that lies
                    self._problem = _spell(error)
                    if self._study is None:
                        self._looked_for = self._finished  # nobody should wait for what cannot be read
                if any(map(operator.is_not, self._to_draw(), self._drawn)):
                    self._draw()
            self._closed.wait(IDLE_TICK if self._study is None and self._inside is None else TICK)

    def _look(self) -> None:
        self._hear_study()
        self._hear_inside()
        self._read()
        is_due = self._study is None or time.monotonic() >= self._looks_again
        is_free = self._looking is None and not self._closed.is_set()
        if self._finished and self._finished != self._looked_for and is_due and is_free:
            self._looked_for, self._looked_at = self._finished, time.monotonic()
            self._looking = ask(look, self.db, self._finished[0])
            self._looking.add_done_callback(partial(self._answer, self._show))

    def _hear_study(self) -> None:
        if self._study is None:
            return
        is_over = not self._study.is_running  # asked before its last messages are read
        for message in self._study.messages():
            if isinstance(message, Failure):
                self._problem = message.text
            elif isinstance(message, Notice):
                self._notices = [*self._notices, message.text]
        if is_over:
            self._study, self._has_ended = None, not self._problem

    def _hear_inside(self) -> None:
        for message in [] if self._inside is None else self._inside.messages():
            if isinstance(message, Inside):
                self._panel.inside.show(message)
                self._inside = None
            elif isinstance(message, Failure):
                self._panel.inside.say(message.text, "wrong")
                self._inside = None
            elif isinstance(message, str):
                self._panel.inside.say(f"Training {message} …", is_busy=True)

    def _read(self) -> None:
        """How far the study is: the one that runs, else the one that is shown."""
        if self._study is None and self._progress is not None:
            self._progress = self._stored(self._progress.study)
        elif self._study is not None or self._has_ended:
            found = self._stored()
            self._progress = found if found and found.start > self._starts else None

    def _stored(self, study: int | None = None) -> Progress | None:
        """See `read_progress`; the same object as long as nothing is written."""
        now = study, _last_write(self.db)
        if now != self._read_at:
            self._read_last = read_progress(self.db, study)
            self._read_at = now
        return self._read_last

    def _answer(self, show: Callable[[Any], None], future: Future[Any]) -> None:
        """Show what the helper has found out."""
        if self._closed.is_set() or future.cancelled():
            return
        with self._lock:
            try:
                show(future.result())
            except Exception as error:  # or nobody would see it: this is called from a thread of the pool
                self._problem = _spell(error)
            finally:
                if future is self._looking:
                    self._looking = None
                self._draw()

    def _show(self, found: tuple[View, dict[int, str]]) -> None:
        view, studies = found
        now = time.monotonic()
        self._looks_again = now + REST * (now - self._looked_at)
        if self._progress is None or self._progress.study != view.study:
            return  # another was chosen, or started, since it was asked for
        self._view, self._shown = view, self._progress
        if self._data is None and view.study not in self._data_of:
            about = ask(about_data, self._shown.config, read_asked(self.db, view.study).data)
            about.add_done_callback(partial(self._answer, partial(self._data_of.setdefault, view.study)))
        self._panel.seen.show(view)
        self._is_drawing = True
        self._panel.offer_studies(studies, view.study)
        self._is_drawing = False

    def _to_draw(self) -> tuple[object, ...]:
        """All that decides what is drawn, but for the knobs, which say themselves when they are turned."""
        return self._study, self._progress, self._problem, self._notices, self._has_ended, self._view

    def _draw(self) -> None:
        """Bring buttons, bars and words up to date."""
        with self._lock:
            self._drawn = self._to_draw()
            found, wrong = self._panel.knobs.read()
            if found is not None:
                self._valid = found[0], found[1]
            panel, progress, is_running = self._panel, self._progress, self._study is not None
            panel.wrong.value = "" if not wrong else paragraph(wrong, "wrong")
            panel.run.disabled = is_running or found is None
            panel.stop.disabled = not is_running
            panel.study.disabled = is_running
            panel.export.disabled = self._view is None
            is_this = progress is not None and found == [progress.config, progress.plan]
            is_own = self._shown is not None and self._data_of.get(self._shown.study, {}) is None
            is_open = is_this and not progress.is_complete and not self._has_ended and not is_own
            panel.run.description = "Resume" if is_open and not is_running else "Run"
            self._is_drawing = True
            panel.preset.value = next((name for name, one in PRESETS.items() if self._is_set(one)), OWN)
            self._is_drawing = False
            panel.show_progress(pd.DataFrame() if progress is None else progress.arms, self._seconds_left())
            panel.say(self._problem or self._status(is_ready=not wrong), bool(self._problem))
            is_old = (
                is_running and self._shown is not None and (progress is None or progress.study != self._shown.study)
            )
            panel.show_difference(self._shown, *self._valid, is_own=is_own, is_other=is_old)

    def _seconds_left(self) -> pd.Series:
        """Of each arm, by the mean time of its runs so far: missing before it has one, and while nothing trains."""
        progress = self._progress
        if progress is None or self._study is None:
            return pd.Series(dtype=float)
        on_gpu = progress.config.device != "cpu" and torch.cuda.is_available()
        arms = progress.arms
        return arms["seconds"] * (arms["planned"] - arms["finished"]) / (1 if on_gpu else joblib.effective_n_jobs(-1))

    def _status(self, is_ready: bool) -> str:
        progress = self._progress
        if progress is None and self._study is not None:
            said = "Reading the data …"
        elif progress is None:
            said = "Ready." if is_ready else "Not ready: see what is wrong among the knobs."
        else:
            arms = progress.arms
            done = f"{arms['finished'].sum()} of {arms['planned'].sum()} runs"
            if progress.is_complete:
                said = f"Finished: {done}."
            elif self._study is not None:
                left = spell_time_left(float(self._seconds_left().sum(skipna=False)))
                said = f"Training: {', '.join(filter(None, [f'{done} are finished', left]))}."
            elif self._has_ended:
                said = f"Finished after {done}: the interval is narrow enough."
            else:
                said = f"Stopped: {done} are kept. Resume goes on."
        kept = f"Kept in {self.db.name}."
        if self._folder is not None:
            kept = 'Kept only while this kernel runs; rlm.Explorer(db="study.db") keeps it.'
        return " ".join([said, kept, *self._notices])

    def _is_set(self, preset: tuple[StudyConfig, Plan]) -> bool:
        config, plan = self._valid
        data = {name: getattr(config, name) for name in ("dataset", "reading")}
        return (preset[0].model_copy(update=data), preset[1]) == (config, plan)

    def _choose_preset(self, change: dict[str, Any]) -> None:
        if not self._is_drawing and change["new"] != OWN:
            config, plan = PRESETS[change["new"]]
            data = {name: getattr(self._valid[0], name) for name in ("dataset", "reading")}
            self._panel.knobs.show(config.model_copy(update=data), plan)

    def _choose_study(self, change: dict[str, Any]) -> None:
        if self._is_drawing or not change["new"] or self._study is not None:
            return
        with self._lock:
            self._progress, self._has_ended, self._problem = read_progress(self.db, change["new"]), False, ""
            config = self._progress.config
            if self._data is not None and not self._is_of(self._progress, config):
                config = config.model_copy(update={"dataset": YOUR_TABLE, "reading": READ_AS_IT_IS})
            self._panel.knobs.show(config, self._progress.plan)

    def _last_study(self, config: StudyConfig, is_any: bool) -> Progress | None:
        """The study of the store that was started last: any, or of the data that were handed over."""
        last = read_progress(self.db)
        if last is None or is_any:
            return last
        found = [read_progress(self.db, int(study)) for study in list_studies(self.db).index]
        found = sorted(filter(None, found), key=operator.attrgetter("start"), reverse=True)
        return next((one for one in found if self._is_of(one, config)), None)

    def _is_of(self, stored: Progress, config: StudyConfig) -> bool:
        """Whether a study is of the table that was handed over, or else of the data of a config, as they are now."""
        own = stored.config
        if self._data is None and (own.dataset != config.dataset or config.reading not in (own.reading, READ_AS_IT_IS)):
            return False
        return read_asked(self.db, stored.study).data == self._fingerprint(own)

    def _fingerprint(self, config: StudyConfig) -> str | None:
        """Of the table that was handed over, or else of the data that a config names; None if they cannot be read."""
        key = config.max_tokens, config.reading.model_dump_json()
        if key not in self._fingerprints:
            try:
                table = self._data
                corpus = load_corpus(config) if table is None else index_corpus(table, config.max_tokens)
                self._fingerprints[key] = corpus.fingerprint
            except (InputError, OSError):  # which is said when they are to be trained on
                self._fingerprints[key] = None
        return self._fingerprints[key]

    def _compare(self, studies: list[int]) -> None:
        self._problem = ""
        if self._comparing is not None:
            self._comparing.cancel()
        self._comparing = ask(compare_studies, self.db, studies)
        self._comparing.add_done_callback(partial(self._answer, self._panel.compare.show))

    def _train_inside(self, seed: int) -> None:
        if self._inside is not None:
            self._inside.stop()
        self._panel.inside.say("Reading the data …", is_busy=True)
        self._inside = Background(train_inside, self._valid[0], self._data, seed)

    def _to_export(self, folder: Path | str | None = None) -> tuple[Path, int, Path]:
        beside = self.db.parent if self._folder is None else Path.cwd()  # what is exported outlives the kernel
        folder = Path(folder or beside / f"{self.db.stem}-study-{self._view.study}")
        return self.db, self._view.study, folder.resolve()

    def _export(self) -> None:
        self._problem = ""
        self._panel.exported.value = paragraph("Writing …", "quiet")
        ask(export, *self._to_export()).add_done_callback(partial(self._answer, self._show_export))

    def _show_export(self, written: Exported) -> None:
        self._panel.exported.value = (
            paragraph(f"Written: {written.page} and, beside it, {written.config.name}. To repeat it:", "quiet")
            + f"<pre>{escape(written.code)}</pre>"
        )


def _last_write(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _spell(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
