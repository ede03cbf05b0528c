"""The explorer: set up a study, run it, watch it, stop it, resume it, and look inside one seed."""

import operator
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any

import pandas as pd

from rlm.config import READ_AS_IT_IS, YOUR_TABLE, Plan, ReadOptions, StudyConfig
from rlm.errors import InputError
from rlm.explorer.panel import Panel
from rlm.explorer.probe import Probe, describe_data
from rlm.explorer.session import Session, spell_error
from rlm.presets import PRESETS
from rlm.report.markup import paragraph
from rlm.report.view import View, about_data, compare_studies, look
from rlm.runtime.process import Child, ask
from rlm.store.file import check_file
from rlm.store.read import Progress

TICK, IDLE_TICK = 0.2, 1.0  # seconds between looks at the store
REST = 2  # while a study runs, pictures take a third of the time, because they take a core from training
_OPEN: dict[Path, "Explorer"] = {}


class Explorer:
    """
    A panel to explore studies; it is displayed if it is the last line of a notebook's cell.

    Studies run as commands in processes of their own, and the store keeps every finished block of seeds. A study that
    was stopped, or whose notebook was closed, can be resumed.

    Parameters
    ----------
    data
        Text pairs or triplets, see `rlm.index_corpus`, or the name of a dataset or path of a file, see `rlm.load`; by
        default those of the study that was started last.
    db
        Store, see `rlm.run_study`; by default one that is deleted when Python ends. The panel opens with the study of
        these data that was started last.
    reading
        How to read a file: fields of `StudyConfig.reading`.

    Raises
    ------
    InputError
        If `db` is not a usable store.
    pydantic.ValidationError
        If `reading` has unknown fields or invalid values.

    Examples
    --------
    >>> import rlm
    >>> explorer = rlm.Explorer("chatterbot-english")
    >>> explorer.set(encoder="mean", seeds=5)
    >>> explorer.config.encoder, len(explorer.results)
    ('mean', 0)
    >>> explorer.close()

    In a notebook, ``explorer`` displays the panel, and ``explorer.run()`` does the same as its button.
    """

    def __init__(
        self,
        data: pd.DataFrame | str | Path | None = None,
        db: Path | str | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> None:
        self._data = data if isinstance(data, pd.DataFrame) else None
        self._folder = folder = tempfile.TemporaryDirectory(prefix="rlm-") if db is None else None
        self.db = (Path(folder.name, "studies.db") if folder else check_file(db)).resolve()
        self._session = Session(self.db, self._data)
        config, plan = PRESETS["quick look"]
        named = YOUR_TABLE if self._data is not None else str(data or config.dataset)
        config = config.model_copy(update={"dataset": named, "reading": ReadOptions(**(reading or {}))})
        self._session.open_last(config, is_any=data is None and reading is None)
        config, plan = (self._session.progress and self._session.progress.knobs) or (config, plan)
        self._drawn: tuple[object, ...] = ()
        self._view: View | None = None
        self._shown: Progress | None = None  # of the view
        self._data_of: dict[int, Mapping[str, str] | None] = {}  # by study, see `about_data`
        self._looked_for: tuple[object, ...] | None = None
        self._looked_at = self._looks_again = 0.0
        self._looking: Future[Any] | None = None  # one at a time
        self._comparing: Future[Any] | None = None  # the last one
        self._probe: Probe | None = None
        earlier = _OPEN.pop(self.db, None)  # the same cell, run again
        self._session.child = earlier.close() if earlier else None
        _OPEN[self.db] = self
        ask(callable, look)  # imports what a look takes, so that the first picture does not wait for that
        self._closed, self._lock = Event(), RLock()
        hidden = ["dataset", "reading"] if self._data is not None else []
        self._panel = Panel(
            config, plan, hidden, on_change=self._draw, on_choice=self._compare, on_train=self._train_inside,
            on_name=self._session.name, on_export=self._export, on_sweep=partial(self._begin, self._session.start),
        )  # fmt: skip
        self._panel.study.observe(self._choose_study, "value")
        self._panel.run.on_click(lambda _: self.run())
        self._panel.plan.on_click(lambda _: self._begin(self._session.plan))
        self._panel.stop.on_click(lambda _: self.stop())
        self._panel.export.on_click(lambda _: self._export([]))
        self._draw()
        Thread(target=self._watch, name="rlm explorer", daemon=True).start()

    @property
    def config(self) -> StudyConfig:
        """The settings of the panel."""
        return self._settings()[0]

    @property
    def results(self) -> pd.DataFrame:
        """The runs of the study that is shown, see `rlm.run_study`; empty at first."""
        return pd.DataFrame() if (seen := self._seen()) is None else seen.results

    @property
    def words(self) -> str:
        """What the study that is shown supports."""
        if (seen := self._seen()) is None:
            return "Nothing has been run yet: press Run, and run this cell again when some seeds are finished."
        return " ".join(text for _, text in seen.words) or seen.headline

    def set(self, **settings: Any) -> None:  # noqa: ANN401
        """
        Change settings of the panel.

        Parameters
        ----------
        settings
            Fields of `rlm.StudyConfig`; seeds, until, metric.

        Raises
        ------
        pydantic.ValidationError
            If there is no such field, or its value is invalid; then nothing is set.
        """
        config, plan = self._panel.valid
        mine = {name: settings.pop(name) for name in Plan.model_fields if name in settings}
        config = StudyConfig.model_validate(dict(config) | settings)
        self._panel.knobs.show(config, Plan.model_validate(dict(plan) | mine))

    def run(self) -> None:
        """
        Run the study of these settings in the background; runs that the store has are not repeated.

        Raises
        ------
        InputError
            If a setting is invalid, or a study is already running.
        """
        self._begin(self._session.start)

    def stop(self) -> None:
        """Stop the study now. The store keeps what is finished, and `run` resumes it."""
        with self._lock:
            self._session.stop()
            self._draw()

    def wait(self) -> None:
        """Wait until the study has ended and all of it is shown, or the panel is closed."""
        while not self._closed.wait(TICK):
            with self._lock:  # otherwise a study could seem to have ended before its last runs are read
                is_shown = self._panel.wanted(self._session) in (None, self._looked_for)
                if self._session.child is None and self._looking is None and is_shown:
                    return

    def export(self, folder: Path | str | None = None) -> Path:
        """
        Write what is shown: one HTML file, the config, and the line of code that repeats it.

        Parameters
        ----------
        folder
            New or existing; by default named after store and study, beside a kept store or in the working directory.

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
        if self._seen() is None:
            raise InputError("expected at least one finished run to export, found none; run the study")
        return self._write([], folder).result().page

    def close(self) -> Child | None:
        """
        Close the panel; a study that is running continues.

        Returns
        -------
        Child or None
            That study, for another panel to take over.
        """
        with self._lock:
            self._closed.set()
            if self._probe is not None:
                self._probe.stop()
            return self._session.release()

    def _repr_mimebundle_(self, **options: Any) -> Any:  # noqa: ANN401
        return {**(self._panel.widget._repr_mimebundle_(**options) or {}), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"rlm.Explorer(db={self.db.name!r}), a panel for notebooks. {self._session.explain(is_ready=True)}"

    def _seen(self) -> View | None:
        """Return what is shown; if nothing runs, wait for the first picture of what the store has."""
        if self._view is None and self._session.child is None and self._session.finished:
            self.wait()
        return self._view

    def _settings(self) -> tuple[StudyConfig, Plan]:
        found, wrong = self._panel.knobs.read()
        if found is None:
            raise InputError(wrong)
        return found[0], found[1]

    def _begin(self, start: Callable[..., None], *more: str) -> None:
        with self._lock:
            start(*self._settings(), *more)
            self._draw()

    def _watch(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                try:
                    self._look()
                except Exception as error:  # otherwise the thread would end, and the panel show an old state
                    self._session.problem = spell_error(error)
                    if self._session.child is None:
                        self._looked_for = self._panel.wanted(self._session)  # or `wait` would wait for ever
                if any(map(operator.is_not, (*self._session.state, self._view), self._drawn)):
                    self._draw()
            self._closed.wait(TICK if self._session.child or self._probe else IDLE_TICK)

    def _look(self) -> None:
        self._check_probe()
        self._session.refresh()
        wanted = self._panel.wanted(self._session)
        is_due = self._session.child is None or time.monotonic() >= self._looks_again
        is_free = self._looking is None and not self._closed.is_set()
        if wanted and wanted != self._looked_for and is_due and is_free:
            self._looked_for, self._looked_at = wanted, time.monotonic()
            self._looking = ask(look, self.db, wanted[0], *wanted[2:], self._session.processes)
            self._looking.add_done_callback(partial(self._answer, self._show))

    def _check_probe(self) -> None:
        if (probe := self._probe) is None or probe.is_running:
            return
        self._probe = None
        try:
            self._panel.inside.show(probe.load())
        except InputError as error:
            probe.stop()
            self._panel.inside.show_status(str(error), "wrong")

    def _answer(self, show: Callable[[Any], None], future: Future[Any]) -> None:
        """Show an answer of the helper."""
        if self._closed.is_set() or future.cancelled():
            return
        with self._lock:
            try:
                show(future.result())
            except Exception as error:  # a thread of the pool calls this, and nobody would see it
                self._session.problem = spell_error(error)
            finally:
                if future is self._looking:
                    self._looking = None
                self._draw()

    def _show(self, found: tuple[View, dict[int, str]]) -> None:
        (view, studies), now = found, time.monotonic()
        self._looks_again = now + REST * (now - self._looked_at)
        progress = self._session.progress
        if progress is None or progress.study != view.study:
            return  # another study has been chosen or started meanwhile
        self._view, self._shown = view, progress
        if self._data is None and progress.knobs and view.study not in self._data_of:
            about = ask(about_data, progress.config, progress.data, describe_data)
            about.add_done_callback(partial(self._answer, partial(self._data_of.setdefault, view.study)))
        self._panel.seen.show(view)
        self._panel.offer_studies(studies, view.study)

    def _draw(self) -> None:
        """Update buttons, bars and words."""
        with self._lock:
            self._drawn = (*self._session.state, self._view)
            lost = 'Runs are kept only while this kernel runs; rlm.Explorer(db="study.db") keeps them.'
            kept = lost if self._folder else f"Runs are kept in {self.db.name}."
            is_own = self._shown is not None and self._data_of.get(self._shown.study, {}) is None
            self._panel.draw(self._session, self._shown, is_own=is_own, kept=kept)

    def _choose_study(self, change: dict[str, Any]) -> None:
        if self._panel.is_drawing or not change["new"] or self._session.child is not None:
            return
        with self._lock:
            self._session.open(change["new"])
            if (shown := self._session.progress) is None or shown.knobs is None:
                return
            config = shown.config
            if self._data is not None and not self._session.is_of(shown.config, shown.data, config):
                config = config.model_copy(update={"dataset": YOUR_TABLE, "reading": READ_AS_IT_IS})
            self._panel.knobs.show(config, shown.plan)

    def _compare(self, studies: list[int]) -> None:
        self._session.problem = ""
        if self._comparing is not None:
            self._comparing.cancel()
        self._comparing = ask(compare_studies, self.db, studies, self._panel.valid[1].metric)
        self._comparing.add_done_callback(partial(self._answer, self._panel.compare.show))

    def _train_inside(self, seed: int) -> None:
        if self._probe is not None:
            self._probe.stop()
        try:
            self._probe = Probe(self._panel.valid[0], self._data, seed)
            self._panel.inside.show_status(f"Training {' and '.join(self._probe.arms)} …", is_busy=True)
        except (InputError, OSError) as error:
            self._probe = None
            self._panel.inside.show_status(str(error), "wrong")

    def _write(self, studies: list[int], folder: Path | str | None = None) -> Future[Any]:
        """Write several studies, or else the one that is shown."""
        from rlm.report.results_page import export_stored  # what writes notebooks takes seconds to import
        from rlm.report.study_page import export_studies

        metric = self._panel.valid[1].metric if self._view is None else self._view.metric.name
        shown = studies or [self._view.study if self._view else 0]
        beside = self.db.parent if self._folder is None else Path.cwd()  # what is exported outlives the kernel
        folder = Path(folder or beside / f"{self.db.stem}-study-{'-'.join(map(str, shown))}").resolve()
        if studies:
            return ask(export_studies, self.db, studies, folder, metric)
        return ask(export_stored, self.db, shown[0], folder, describe_data, metric)

    def _export(self, studies: list[int]) -> None:
        self._session.problem = ""
        self._panel.exported.value = paragraph("Writing …", "quiet")
        self._write(studies).add_done_callback(partial(self._answer, self._panel.show_export))
