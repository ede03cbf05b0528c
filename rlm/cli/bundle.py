"""The commands `rlm bundle` and `rlm check`: a study in one file, and whether another machine agrees with it."""

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
from cyclopts import Parameter

from rlm.cli.output import check_out, show, show_verdicts
from rlm.config import YOUR_TABLE
from rlm.data.datasets import describe_data
from rlm.errors import InputError
from rlm.experiment import collect, iter_experiment
from rlm.runtime.atomic import whole
from rlm.runtime.provenance import versions
from rlm.store.edit import merge_store
from rlm.store.read import TRIPLETS, StoredStudy, find_study, read_origin, read_progress, read_study
from rlm.store.schema import reading
from rlm.study import TripletStudy, load_corpus
from rlm.variants import ARMS, find_variant
from rlm.verdict import compare_all, find_baseline, paired_arms

SUMS = "SHA256SUMS"
FILES = ("study.db", "config.json", "results.csv", "verdict.json", "report.html")
A_FEW, SHARE = 3, 0.01  # triplets that floating point may change, and their share of a larger test split
EXACT = 1e-9
LARGEST = 2**30  # bytes of a bundle


def bundle(db: Path, /, *, out: Path, study: int | None = None) -> None:
    """
    Write one study as a single file: store, config, results, verdict and page, with their hashes.

    Parameters
    ----------
    db
        The store.
    out
        ZIP file to write.
    study
        Number of the study; optional where there is only one.
    """
    check_out(out, db)
    with reading(db) as (connection, path):
        number = find_study(connection, path, TRIPLETS, study).study.study
    from rlm.report.study_page import export_study  # with Jupyter and matplotlib, which take seconds

    with TemporaryDirectory(prefix="rlm-") as name:
        folder = Path(name)
        merge_store(folder / "study.db", db, number)
        stored = read_study(folder / "study.db")
        export_study(folder / "study.db", 1, folder, describe_data)
        texts = {
            "config.json": stored.config.model_dump_json(indent=1),
            "results.csv": stored.finished.results.to_csv(index=False),
            "verdict.json": json.dumps(_judge(stored), indent=1),
        }
        contents = {one: texts[one].encode() if one in texts else (folder / one).read_bytes() for one in FILES}
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {one}\n" for one, content in contents.items())
    with whole(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for one, content in (contents | {SUMS: sums.encode()}).items():
            file.writestr(one, content)
    print(f"bundle: {out}")


def check(
    file: Path,
    /,
    *,
    dataset: str | None = None,
    seed: int | None = None,
    jobs: int = -1,
    train: Annotated[bool, Parameter(negative="--no-train")] = True,
) -> None:
    """
    Check a bundle: its hashes, its verdict, and one seed that is trained again on this machine.

    It ends with exit code 1 if this machine does not agree.

    Parameters
    ----------
    file
        ZIP file of `rlm bundle`.
    dataset
        Where the data are on this machine, if not where they were.
    seed
        Seed to train again; a random one by default.
    jobs
        Processes; -1 for one per core.
    train
        Train a seed again.
    """
    contents = _open(file)
    with TemporaryDirectory(prefix="rlm-") as folder:
        path = Path(folder, "study.db")
        path.write_bytes(contents["study.db"])
        stored, asked, origin = read_study(path), read_progress(path, 1), read_origin(path, 1)
    results = pd.read_csv(io.BytesIO(contents["results.csv"]))
    numbers = ["test_accuracy", "validation_accuracy"]
    is_same = np.allclose(results[numbers], stored.finished.results[numbers], rtol=0, atol=EXACT, equal_nan=True)
    print(f"{file}: all hashes are correct; the results are {'' if is_same else 'NOT '}those of the store")
    here, there = _judge(stored), json.loads(contents["verdict.json"])
    agreed = is_same and _is_same_verdict(here, there)
    print(f"the verdict, computed again, is {'the same' if agreed else f'NOT that of the bundle, {there}'}")
    show_verdicts(_verdicts(stored))
    now = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"\ntrained with {origin['versions']}\nhere are     {now}")
    if train:
        agreed &= _train_again(stored, asked, dataset, seed, jobs)
    if not agreed:
        sys.exit(1)


def _verdicts(stored: StoredStudy) -> dict[str, Any]:
    results, clusters = stored.finished.results, stored.finished.clusters
    return compare_all(results, metric=results.attrs["metric"], arms=paired_arms(results), clusters=clusters)


def _judge(stored: StoredStudy) -> dict[str, Any]:
    """Return decision and judged interval by arm."""
    return {
        arm: {
            "baseline": found.baseline,
            "decision": found.decision,
            "interval": list(found.judged),
            "text": found.text,
        }
        for arm, found in _verdicts(stored).items()
    }


def _is_same_verdict(here: dict[str, Any], there: dict[str, Any]) -> bool:
    """Return whether decisions are the same, and intervals up to the digits that libraries may change."""
    intervals = [[one["interval"] for one in of.values()] for of in (here, there)]
    decisions = [{arm: one["decision"] for arm, one in of.items()} for of in (here, there)]
    return decisions[0] == decisions[1] and np.allclose(*intervals, rtol=0, atol=1e-6, equal_nan=True)


def _open(file: Path) -> dict[str, bytes]:
    """Read a bundle without extracting it, and verify its hashes."""
    if not file.is_file():
        raise InputError(f"expected a file of rlm bundle, found no file {file}; check the path")
    try:
        with zipfile.ZipFile(file) as opened:
            if sum(one.file_size for one in opened.infolist()) > LARGEST:
                raise InputError(f"expected a bundle of at most a gibibyte, found a larger one, {file}; unpack it")
            contents = {name: opened.read(name) for name in (*FILES, SUMS)}
    except (zipfile.BadZipFile, KeyError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"expected a file of rlm bundle, found {file}: {error}; bundle the study again") from error
    sums = contents.pop(SUMS).decode(errors="replace")
    for name, content in contents.items():
        if f"{hashlib.sha256(content).hexdigest()}  {name}\n" not in sums:
            raise InputError(f"expected {name} of {file} as it was bundled, found other content; get the file again")
    return contents


def _train_again(stored: StoredStudy, asked: Any, dataset: str | None, seed: int | None, jobs: int) -> bool:  # noqa: ANN401
    """Train one seed under every arm, print both test accuracies, and return whether they agree."""
    config, results = stored.config, stored.finished.results.set_index(["seed", "arm"])
    seeds = results.index.unique("seed")
    if seed is not None and seed not in seeds:
        raise InputError(f"expected a seed of the study, found {seed}; choose among {', '.join(map(str, seeds))}")
    is_given = YOUR_TABLE in (config.dataset, config.pretrain_texts)
    if asked.source is not None or is_given or any(find_variant(arm).start not in ARMS for arm in config.arms):
        print("\nno seed is trained again: a bundle does not keep your own encoders, starts or data")
        return True
    config = config if dataset is None else config.model_copy(update={"dataset": dataset})
    study = TripletStudy(config, load_corpus(config), baseline=find_baseline(stored.finished.results))
    if study.identify().data != asked.data:
        raise InputError(f"expected the data of the study, found others in {config.dataset}; pass them as --dataset")
    chosen = int(np.random.default_rng().choice(seeds)) if seed is None else seed
    again = collect(iter_experiment(study, [chosen], n_jobs=jobs), study.arms)[0].results.set_index("arm")
    before = results.loc[chosen]
    table = pd.DataFrame({"stored": before["test_accuracy"], "here": again["test_accuracy"]}).rename_axis("arm")
    table["triplets"] = ((table["here"] - table["stored"]).abs() * before["test_triplets"]).round(1)
    allowed = np.maximum(A_FEW, SHARE * before["test_triplets"])
    is_close = (table["triplets"] <= allowed) | table[["stored", "here"]].isna().all(axis=1)
    print(f"\nseed {chosen}, trained again: test accuracy, difference in test triplets\n")
    show("seed", table, 4)
    most = f"{allowed.max():g} of {before['test_triplets'].max():,} test triplets"
    verdict = f"agrees: no arm differs by more than {most}"
    if not is_close.all():
        verdict = f"does NOT agree: a difference of more than {most} for {', '.join(table.index[~is_close])}"
    print(f"\nthis machine {verdict}")
    return bool(is_close.all())
