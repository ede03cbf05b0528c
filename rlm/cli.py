"""The command line: `rlm study` and `rlm report`."""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pandas as pd
import pydantic
from cyclopts import App, CycloptsError, Parameter

from rlm.datasets import load
from rlm.errors import InputError
from rlm.files import write_whole
from rlm.stats import compare, summarise
from rlm.study import StudyConfig, iter_study, tidy

app = App(
    name="rlm",
    help="Does random label memorisation, used as pre-training, help a triplet encoder, or was it a lucky seed?",
    version=metadata.version("rlm"),
)


@app.command
def study(
    *,
    config: Annotated[StudyConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = StudyConfig(),  # noqa: B008
    seeds: int = 30,
    out: Path | None = None,
    jobs: int = -1,
) -> None:
    """
    Train every arm with every seed, print the table and the verdict.

    Ctrl-C ends the study early: what is finished is kept and judged.

    Parameters
    ----------
    config
        What to study.
    seeds
        Number of paired seeds.
    out
        CSV file for the results, one row per arm and seed; written anew as each block of seeds is finished.
    jobs
        Processes; -1 for one per core.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(
            f"expected a file in an existing folder for --out, found {out}; name a file, or create the folder first"
        )
    finished: list[pd.DataFrame] = []
    try:
        for block in iter_study(config, seeds, n_jobs=jobs):
            finished.append(block.results)
            if out is not None:
                write_whole(out, tidy(pd.concat(finished), config).to_csv(index=False))
    except KeyboardInterrupt:
        if not finished:
            sys.exit("interrupted before any block of seeds was finished")
        print("interrupted: this is what was finished", file=sys.stderr)
    results = tidy(pd.concat(finished), config)
    print(f"{config.dataset}, encoder {config.encoder}: test accuracy over seeds, mean with its 95 % interval\n")
    print(summarise(results).to_string(float_format="{:.3f}".format))
    for arm in config.arms:
        seeds_of = [set(results.loc[results["arm"] == name, "seed"]) for name in (arm, "scratch")]
        if arm != "scratch" and set.intersection(*seeds_of):
            print(f"\n{compare(results, arm).text}")
    if out is not None:
        print(f"\nresults: {out}")


@app.command
def report(
    *,
    dataset: str = StudyConfig().dataset,
    seeds: int = 20,
    out: Path = Path("reports"),
    notebooks: Path | None = None,
) -> None:
    """
    Execute the numbered notebooks and write them as self-contained HTML, with an index that opens with the verdict.

    Parameters
    ----------
    dataset
        chatterbot-LANGUAGE, pqa, or the path of a file with columns anchor, positive[, negative].
    seeds
        Number of paired seeds in the study.
    out
        Folder for the pages.
    notebooks
        Folder of the numbered notebooks; those of this checkout by default.
    """
    from rlm.report import NOTEBOOKS, build_report  # Jupyter takes seconds to import, and only reports need it

    if seeds < 1:
        raise InputError(f"expected --seeds of at least 1, found {seeds}")
    load(dataset)  # a wrong name or file ends here, not minutes later in a notebook
    if Path(dataset).is_file():
        dataset = str(Path(dataset).resolve())  # notebooks run in their own folder
    print(build_report(out, {"dataset": dataset, "seeds": seeds}, notebooks or NOTEBOOKS))


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"rlm: {_explain(error)}", file=sys.stderr)
        sys.exit(2)
    except (InputError, OSError) as error:
        print(f"rlm: {error}", file=sys.stderr)
        sys.exit(2)


def _explain(error: CycloptsError) -> str:
    invalid = error.__cause__
    if not isinstance(invalid, pydantic.ValidationError):
        return str(error)
    lines = []
    for problem in invalid.errors():
        option = "".join(f"--{field} " for field in problem["loc"][:1]).replace("_", "-")
        found = f", found {problem['input']!r}" if problem["loc"] else ""
        lines.append(f"{option}{problem['msg'].removeprefix('Value error, ')}{found}")
    return "; ".join(lines)
