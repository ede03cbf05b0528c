"""The commands for the studies of a store: `rlm studies`, `rlm note`, `rlm delete` and `rlm merge`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rlm.cli.output import check_table_out, show, write_table
from rlm.errors import InputError
from rlm.sentences import count
from rlm.store.edit import delete_study, merge_store, name_study
from rlm.store.read import list_studies

WIDEST = 60  # characters of a column


def studies(db: Path, /, *, out: Path | None = None) -> None:
    """
    List the studies of a store: names, tags, the settings that differ, seeds and state.

    Parameters
    ----------
    db
        The store.
    out
        File for the list, ending in .csv, .json, .md, .parquet, .tex or .tsv.
    """
    check_table_out(out, db)
    found = list_studies(db, None)
    show("studies", found.dropna(axis=1, how="all").fillna(""), max_colwidth=WIDEST)
    if out is not None:
        write_table(out, found.reset_index())
        print(f"\nstudies: {out}")


def note(
    db: Path, study: int, text: str | None = None, /, *, name: str | None = None, tags: tuple[str, ...] | None = None
) -> None:
    """
    Give a study a note, a name or tags, also while a run is writing it; an empty text takes them away.

    Parameters
    ----------
    db
        The store.
    study
        Number of the study, see `rlm studies`.
    text
        What to remember of it.
    name
        Name that lists and the panel show.
    tags
        Tag, given once or more; they replace the tags it has.
    """
    given = {"note": text, "name": name, "tags": None if tags is None else ",".join(tags)}
    about = {field: value for field, value in given.items() if value is not None}
    if not about:
        raise InputError("expected a note, --name or --tags, found none; give at least one")
    name_study(db, study, about)
    print(f"study {study} of {db}: {', '.join(about)} set")


def delete(db: Path, study: int, /, *, yes: Annotated[bool, Parameter(negative=())] = False) -> None:
    """
    Delete a study of a store, after a question.

    Parameters
    ----------
    db
        The store.
    study
        Number of the study, see `rlm studies`.
    yes
        Delete it without a question.
    """
    listed = list_studies(db, None)
    if study in listed.index:
        print(listed.loc[[study]].dropna(axis=1).to_string(max_colwidth=WIDEST))
    if study in listed.index and not yes:
        if not sys.stdin or not sys.stdin.isatty():
            raise InputError("expected --yes without a terminal to ask in, found none; add it to delete the study")
        if input(f"permanently delete study {study} and its runs? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing is deleted")
            return
    delete_study(db, study)
    print(f"study {study} of {db} is deleted")


def merge(db: Path, /, *others: Path) -> None:
    """
    Add the studies of other stores to a store. Runs that it has already stay as they are.

    Parameters
    ----------
    db
        The store, made if it does not exist.
    others
        Stores of the same version of rlm, from other machines perhaps. They are not changed.
    """
    if not others:
        raise InputError("expected two stores or more to merge, found one; name another")
    for other in others:
        for study, runs in merge_store(db, other).items():
            print(f"{other}: {count(runs, 'run')} added to study {study} of {db}")
