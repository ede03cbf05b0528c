"""The command line: `rlm study`, `rlm audit`, `rlm report`; the other commands are in the modules beside this one."""

import io
import logging
import os
import shlex
import shutil
import signal
import sys
import textwrap
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import numpy as np
import pandas as pd
import pydantic
from cyclopts import App, CycloptsError, MissingArgumentError, Parameter

from rlm.cli.bundle import bundle, check
from rlm.cli.lab import lab, notebooks
from rlm.cli.labels import labels
from rlm.cli.models import evaluate, query, train
from rlm.cli.output import (
    as_json,
    check_out,
    check_out_folder,
    ending_like_ctrl_c,
    gather,
    keep,
    print_files,
    show,
)
from rlm.cli.plans import plan
from rlm.cli.settings import ConfigFile, Table, complete, read_table
from rlm.cli.studies import delete, merge, note, studies
from rlm.cli.sweep import sweep
from rlm.cli.verdicts import compare, luck, print_verdict, results, verdict
from rlm.config import READ_AS_IT_IS, Plan, ReadOptions, StudyConfig
from rlm.data.corpus import index_corpus
from rlm.data.datasets import load
from rlm.errors import InputError, naming_extras
from rlm.experiment import judge_so_far
from rlm.models.kept import Keep
from rlm.stats.estimates import FEWEST_PAIRS
from rlm.study import iter_study, load_corpus, slice_for
from rlm.verdict import find_baseline

NARROWEST = 60  # columns

app = App(
    name="rlm",
    help="Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?",
    version=metadata.version("rlm"),
)
app.register_install_completion_command()


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """
    Run a command.

    Parameters
    ----------
    tokens
        The command and its options.
    json
        Print tables and verdicts as one JSON object.
    """
    with as_json() if json else nullcontext():
        app(tokens, exit_on_error=False, print_error=False)


def study(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
    plan: Annotated[Plan, Parameter(name="*")] = Plan(),  # noqa: B008
    arm: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    db: Path | None = None,
    max_seeds: int | None = None,
    look_every: int | None = None,
    out: Path | None = None,
    jobs: int = -1,
    config_file: ConfigFile = None,
    watched: Annotated[bool, Parameter(negative=())] = False,
    keep: Keep | None = None,
    block_size: int | None = None,
    table: Table = None,
) -> None:
    """
    Train every arm with every seed, print the table and the verdict.

    Ctrl-C ends the study early: what is finished is kept and judged.

    Parameters
    ----------
    config
        What to study.
    plan
        How many seeds, and by which metric and baseline they are judged.
    arm
        Arm with other settings, as "wide: dim=128" or "wide: pretrained, dim=128", given once or more. It is added to
        --arms, or else to the baseline alone.
    db
        SQLite file that keeps every block of seeds as it is finished; the same command continues where it ended.
    max_seeds
        Most paired seeds, instead of --seeds, of a study that stops by its results: with --until once the intervals
        are narrow, else as soon as every arm is decided at a planned look.
    look_every
        Number of seeds between planned looks, 10 by default.
    out
        CSV file for the results, one row per arm and seed; written anew as each block of seeds is finished.
    jobs
        Processes; -1 for one per core.
    config_file
        JSON file of settings, as the panel exports it; options that are given as well count first.
    watched
        Judge by the confidence sequence, as for a study that might be stopped for what it shows.
    keep
        Save the model of every run, or of each arm's best seed by validation accuracy, in FILE.weights beside --db.
    block_size
        Most seeds to train together. Fewer are finished sooner and need less memory.
    table
        Parquet file of text pairs or triplets that are nobody's dataset.
    """
    check_out(out, db)
    is_alone = bool(arm) and config_file is None and "arms" not in config.model_fields_set
    config, until = complete(config, config_file), plan.until
    config = StudyConfig.model_validate(dict(config) | {"arms": ((plan.baseline,) if is_alone else config.arms) + arm})
    if max_seeds is not None and "seeds" in plan.model_fields_set:
        raise InputError("expected --seeds or --max-seeds, found both; give --max-seeds alone")
    if max_seeds is None and look_every is not None:
        raise InputError("expected --max-seeds beside --look-every, found none; a fixed number of seeds has no looks")
    planned = plan.seeds if max_seeds is None else max_seeds
    if max_seeds is not None and until is None:
        look_every = look_every or FEWEST_PAIRS
    settings = {"db": db, "look_every": look_every, "watched": watched} | plan.model_dump(exclude={"seeds"})
    settings |= {"keep": keep, "block_size": block_size, "n_jobs": jobs}
    blocks = iter_study(config, planned, data=read_table(table), **settings)
    found, is_interrupted = gather(blocks, config.arms, out)
    if until is not None:
        _say_where_it_stopped(found.results, config.arms, until, planned, is_interrupted)
    elif look_every is not None:
        pairs = found.results.groupby("arm")["seed"].nunique().min()
        why = "every arm is decided" if pairs < planned else "the last planned look"
        print(f"stopped after {pairs} of {planned} seeds: {'interrupted' if is_interrupted else why}\n")
    print_verdict(found.results, found.clusters, config, config.encoder)
    print_files(found, out, db)


def _say_where_it_stopped(
    results: pd.DataFrame, arms: Sequence[str], until: float, planned: int, is_interrupted: bool
) -> None:
    judged = judge_so_far(results, arms, range(planned), results.attrs["metric"], baseline=find_baseline(results))
    pairs = min((one.pairs for one in judged.values()), default=0)
    widths = {arm: one.difference.width for arm, one in judged.items()}
    found = ", ".join(
        f"{100 * width:.1f} points for {arm}" if np.isfinite(width) else f"unknown for {arm}"
        for arm, width in widths.items()
    )
    wanted = f"narrower than {100 * until:g} points"
    if pairs < FEWEST_PAIRS:
        said = f"{pairs} paired seeds are too few for an interval, which takes {FEWEST_PAIRS}; {wanted} was asked for"
    elif all(width < until for width in widths.values()):
        said = f"stopped by the confidence sequence after {pairs} pairs: its interval is {found}, {wanted}"
    elif is_interrupted:
        said = f"interrupted after {pairs} pairs, before an interval {wanted}: it is {found}"
    else:
        said = f"{planned} seeds were not enough for an interval {wanted}: it is {found}"
    print(f"{said}\n")


def audit(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
) -> None:
    """
    Look for reasons not to trust a study of this config: leaks, shortcuts, contradictions, what needs no encoder.

    Parameters
    ----------
    config
        Of the study; its settings of training make no difference.
    """
    from rlm.evaluation.audit import audit

    corpus = load_corpus(config)
    found = audit(corpus, slice_for(config, corpus, [0])[0])
    keep("checks", found.checks)
    show("splits", found.splits.T, 2)
    print()
    show("references", found.references)
    for one in found.checks.itertuples():
        print(f"\n{one.severity.upper():8}{one.check}: {one.found}")
        if one.severity != "fine":
            print(textwrap.indent(textwrap.fill(f"{one.meaning} {one.advice}", 100), " " * 8))


def report(
    *,
    dataset: str = StudyConfig().dataset,
    reading: Annotated[ReadOptions, Parameter(name="*")] = READ_AS_IT_IS,
    seeds: int = 12,
    out: Path = Path("reports"),
    notebooks: Path | None = None,
) -> None:
    """
    Execute the numbered notebooks and write them as self-contained HTML, with an index that opens with the verdict.

    Parameters
    ----------
    dataset
        chatterbot-LANGUAGE, pqa, or data of your own: a path, or the id of a Hugging Face dataset.
    reading
        How to read data of your own.
    seeds
        Number of paired seeds in the study.
    out
        Folder for the pages.
    notebooks
        Folder of the numbered notebooks; those of this package by default.
    """
    from rlm.report.notebooks import build_report  # Jupyter takes seconds to import, and only reports need it

    if seeds < 1:
        raise InputError(f"expected --seeds of at least 1, found {seeds}")
    check_out_folder(out)
    # What cannot be used ends here, not minutes later in a notebook.
    config = StudyConfig(dataset=dataset, reading=reading)
    data = load(dataset, **reading.model_dump())
    corpus = index_corpus(data, config.max_tokens)
    slice_for(config, corpus, [0])
    about = {
        "command": shlex.join(["rlm", *sys.argv[1:]]),
        "dataset": str(data.attrs.get("title") or dataset),
        "licence": str(data.attrs.get("licence") or "unknown"),
        "data, SHA-256": corpus.fingerprint,
    }
    # Notebooks run in their own folder.
    dataset, options = _absolute(dataset), reading.model_dump(exclude_defaults=True)
    if reading.irrelevant is not None:
        options["irrelevant"] = _absolute(reading.irrelevant)
    parameters = {"dataset": dataset, "seeds": seeds} | ({"reading": options} if options else {})
    print(build_report(out, parameters, notebooks, about))


def _absolute(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


for place, command in enumerate((
    *(study, verdict, audit, plan, results, compare, luck, sweep, labels),
    *(studies, note, delete, merge, bundle, check, train, query, evaluate, report, notebooks, lab),
)):  # fmt: skip
    app.command(command, sort_key=place)


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    _prepare_streams()
    columns = os.environ.get("COLUMNS", "")
    if (int(columns) if columns.isdecimal() else shutil.get_terminal_size().columns) < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)  # help would never be finished
    logging.basicConfig(format="rlm: %(message)s")
    logging.getLogger("rlm").setLevel(logging.INFO)
    warnings.formatwarning = lambda message, category, *_, **__: (
        f"rlm: {'warning: ' * issubclass(category, UserWarning)}{message}\n"
    )
    try:
        with ending_like_ctrl_c(), naming_extras():
            app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has had enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes as it ends
    except KeyboardInterrupt as error:
        _end(128 + (error.args[0] if error.args else signal.SIGINT), "interrupted")
    except CycloptsError as error:
        _end(2, _explain(error))
    except (InputError, OSError) as error:
        _end(2, str(error))


def _end(code: int, message: str) -> NoReturn:
    with suppress(OSError):  # as where the terminal is gone
        print(f"rlm: {message}", file=sys.stderr)
    sys.exit(code)


def _prepare_streams() -> None:
    """Let what is printed to a closed stream go nowhere, and show what an encoding lacks as a replacement character."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest free number, which a file would get otherwise
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _explain(error: CycloptsError) -> str:
    if isinstance(error, MissingArgumentError) and error.argument and error.argument.field_info.is_positional:
        name, command = error.argument.name.lstrip("-").upper(), " ".join(["rlm", *(error.command_chain or [])])
        return f"expected {name}, found none; see: {command} --help"
    invalid = error.__cause__
    if not isinstance(invalid, pydantic.ValidationError):
        return str(error)
    lines = []
    for problem in invalid.errors():
        fields = [part for part in problem["loc"] if isinstance(part, str) and part.isidentifier()]  # others name types
        option = "".join(f"--{field} " for field in fields[-1:]).replace("_", "-")
        lines.append(f"{option}{problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(lines)
