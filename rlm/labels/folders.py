"""Folders of images or videos, with one sub-folder per class, read into samples."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from rlm.data.textfiles import printable, shorten
from rlm.errors import InputError
from rlm.labels.samples import Samples

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Names of folders that are parts of a split, not classes: Train, valid, dev, test_set, train2017 …
_PARTS = {"train": r"train(ing)?", "validation": r"val(id(at(e|ion))?)?|dev(el(opment)?)?", "test": r"test(ing)?"}
_PART_SUFFIX = r"[\W_]*(set|data|split|images|videos)?[\W_]*\d*"
Read = Callable[[Path], UInt8[np.ndarray, "channel *size"] | str]  # a sample, or why there is none


class Listing(NamedTuple):
    """Files with path, name, class and part (None without an official split), and why other files are skipped."""

    folder: Path
    kind: str
    files: pd.DataFrame
    classes: tuple[str, ...]
    skipped: list[tuple[str, str]]


def load_image_folder(
    folder: str | Path, *, size: int | None = None, colour: bool = False, labelled: bool = True
) -> Samples:
    """
    Load images from one sub-folder per class.

    Parameters
    ----------
    folder
        Folder of the class folders; or of ``train`` and ``test``, and perhaps ``valid`` (``val``, ``validation``,
        ``dev``), each with class folders, as an official split that every seed uses. Without ``valid`` a part of
        ``train`` is drawn for validation. A class may have folders inside.
    size
        Height and width in pixels, from 1, to which all images are resized. By default all images must have one size.
    colour
        Three channels, red, green and blue, instead of one of grey. Transparency is ignored.
    labelled
        False for all images in a folder and those inside it, of one class, as ``pretrain_samples`` of `run_labels`.

    Returns
    -------
    Samples
        Brightness in 0 to 255, uint8; the first picture of an animation. Other files are in ``skipped`` with the
        reason: they cannot be decoded, have no suffix of images, are hidden, or are not in a class folder.

    Raises
    ------
    InputError
        If there are fewer than two classes, a class has fewer than two usable images, or none in a part of the official
        split; if sizes differ; if folders may be parts or classes; or if names of classes differ only in capitals.

    Examples
    --------
    >>> import rlm, tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     Image.new("L", (4, 4)).save(folder / name)
    >>> rlm.labels.load_image_folder(folder).inputs.shape
    (4, 1, 4, 4)
    """
    check_positive(size=1 if size is None else size)
    return decode_files(
        list_files(Path(folder), IMAGES, "images", labelled), partial(_read_image, size=size, colour=colour)
    )


def check_positive(**options: int) -> None:
    for name, value in options.items():
        if not isinstance(value, Integral) or value < 1:
            raise InputError(f"expected {name} to be an integer of at least 1, found {value}")


def list_files(folder: Path, suffixes: Sequence[str], kind: str, labelled: bool = True) -> Listing:
    """List the files of the classes, and all other files; without labels all files are one class."""
    tops = _subfolders(folder)
    if not labelled:
        folder = folder.resolve()
        return _list_classes(folder, [(folder, None)], (printable(folder.name),), [], suffixes, kind)
    parts = _find_parts(folder, tops)
    places = [(place, part) for top, part in parts.items() for place in _subfolders(top)]
    if not parts:
        places = [(top, None) for top in tops]
    classes = tuple(sorted({printable(place.name) for place, _ in places}))
    if len(classes) < 2:
        raise InputError(
            f"expected a sub-folder of {folder} for each of at least two classes, found "
            f"{', '.join(classes) or 'none'}; give the folder that holds the folders of the classes"
        )
    _check_names({place.name for place, _ in places})
    _check_nesting([place for place, _ in places])
    return _list_classes(folder, places, classes, list(_list_others(folder, [folder, *parts])), suffixes, kind)


def _list_classes(
    folder: Path,
    places: Sequence[tuple[Path, str | None]],
    classes: tuple[str, ...],
    skipped: list[tuple[str, str]],
    suffixes: Sequence[str],
    kind: str,
) -> Listing:
    rows = []
    for place, part in places:
        for path in sorted(walk(place)):
            name = printable(path.relative_to(folder).as_posix())
            if reason := why_not(path, place, suffixes, kind):
                skipped.append((name, reason))
            else:
                rows.append((path, name, printable(place.name), part))
    if not rows:
        raise InputError(
            f"expected {kind} ({', '.join(suffixes)}) in the {len(classes)} sub-folders of {folder}, found none; "
            "put them there, or give another folder"
        )
    files = pd.DataFrame(rows, columns=["path", "name", "class", "part"], dtype=object)
    return Listing(folder, kind, files, classes, skipped)


def _find_parts(folder: Path, tops: Sequence[Path]) -> dict[Path, str]:
    """Return the folders that are parts of a split, if any; raise if parts and classes could be confused."""
    named = {top: part for top in tops if (part := part_of(top.name))}
    others = [top.name for top in tops if top not in named]
    if others and any(_subfolders(top) for top in named):  # otherwise classes, of which one is called train, or test
        raise InputError(
            f"expected folders of classes or of parts in {folder}, found {list_some(others)} beside "
            f"{list_some([top.name for top in named])}; move these, or rename them"
        )
    if others:
        return {}
    if named and not {"train", "test"} <= {*named.values()}:
        raise InputError(
            f"expected the folders train and test in {folder}, found only {', '.join(top.name for top in named)}; "
            "add the other, or rename them if they are classes"
        )
    return named


def part_of(name: str) -> str | None:
    for part, form in _PARTS.items():
        if re.fullmatch(rf"({form}){_PART_SUFFIX}", name, re.IGNORECASE):
            return part
    return None


def _check_nesting(places: Sequence[Path]) -> None:
    """Raise for folders with parts of a split, or with inner folders of the same names, which may be the classes."""
    inner = Counter(path.name for place in places for path in _subfolders(place))
    shared = sorted(name for name, count in inner.items() if count > 1)
    names = shared if len(shared) > 1 else sorted(filter(part_of, inner))
    if names:
        raise InputError(
            f"expected the files of a class in its folder, found folders {list_some(names)} in "
            f"{list_some([place.name for place in places])}; name the upper folders train, valid and test if they "
            "are parts of a split, give one of them, or move the files up"
        )


def _check_names(names: set[str]) -> None:
    """Raise for classes whose names differ only in what is not visible."""
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(unicodedata.normalize("NFC", printable(name)).casefold(), name)
        if other != name:
            raise InputError(
                f"expected names of classes that differ in more than capitals, found {shorten(other)} and "
                f"{shorten(name)}; rename the folders of one of them"
            )


def _list_others(folder: Path, tops: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """List files beside the folders of parts and classes, and in hidden folders there."""
    for top in tops:
        for path in sorted(top.iterdir()):
            if path.name.startswith("."):
                for hidden in sorted(walk(path)) if path.is_dir() else [path]:
                    yield printable(hidden.relative_to(folder).as_posix()), "hidden"
            elif not path.is_dir():
                yield printable(path.relative_to(folder).as_posix()), "beside the folders of classes"


def walk(folder: Path) -> Iterator[Path]:
    """List everything below a folder except folders; links to folders are not followed, as they may form a cycle."""
    for root, folders, files in os.walk(folder, onerror=_raise):
        yield from (Path(root, name) for name in files)
        yield from (path for name in folders if (path := Path(root, name)).is_symlink())


def _raise(error: OSError) -> None:
    raise InputError(f"expected folders that can be read, found: {error}; change their permissions") from error


def why_not(path: Path, place: Path, suffixes: Sequence[str], kind: str) -> str | None:
    """Return why a file of a class is not a sample, before it is decoded."""
    if any(name.startswith(".") for name in path.relative_to(place).parts):
        return "hidden"
    if path.is_dir():
        return "a link to a folder, which is not followed"
    if path.suffix.lower() not in suffixes:
        return f"has another suffix than those of {kind}"
    return None if path.is_file() else "is a link that leads nowhere, or no file"


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"expected a folder with one sub-folder per class, found none at {folder}; correct the path")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def decode_files(listing: Listing, read: Read) -> Samples:
    """Decode the listed files in parallel."""
    folder, kind, files, classes, skipped = listing
    _check_classes(files, classes, skipped)  # before decoding, which may take an hour
    inputs: np.ndarray = np.empty(0, np.uint8)
    kept: list[int] = []
    pool = ThreadPoolExecutor(joblib.effective_n_jobs(-1))  # both decoders release the lock of the interpreter
    try:
        results = pool.map(partial(_attempt, read), files["path"])
        for row, result in enumerate(tqdm(results, desc=kind, total=len(files), disable=None)):
            name = files["name"].iloc[row]
            if isinstance(result, str):
                skipped.append((name, result))
                continue
            if not kept:
                inputs = np.empty((len(files), *result.shape), np.uint8)
            if result.shape != inputs.shape[1:]:
                (*_, height, width), (*_, other_height, other_width) = inputs.shape, result.shape
                raise InputError(
                    f"expected images of one size, found {width} x {height} pixels ({files['name'].iloc[kept[0]]}) and "
                    f"{other_width} x {other_height} ({name}); pass size= to resize all of them"
                )
            inputs[len(kept)] = result
            kept.append(row)
    finally:
        pool.shutdown(cancel_futures=True)
    files = files.iloc[kept]
    _check_classes(files, classes, skipped)
    groups = files["group"] if "group" in files else pd.Series(dtype=object)
    return Samples(
        inputs=inputs[: len(kept)],
        labels=np.searchsorted(classes, files["class"].to_numpy(str)).astype(np.int64),
        classes=classes,
        official=None if files["part"].isna().all() else files["part"].to_numpy(str),
        groups=None if groups.isna().all() else pd.factorize(groups.fillna(files["name"]))[0].astype(np.int64),
        about={
            "name": folder.resolve().name,
            "title": f"{kind.capitalize()} of {folder.resolve().name}, {len(classes)} classes",
            "licence": "unknown",
        },
        skipped=pd.DataFrame(skipped, columns=["path", "reason"]),
    )


def _attempt(read: Read, path: Path) -> UInt8[np.ndarray, "channel *size"] | str:
    try:
        return read(path)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise errors of almost any type
        return printable(f"cannot be decoded ({error or type(error).__name__})")


def _check_classes(files: pd.DataFrame, classes: tuple[str, ...], skipped: list[tuple[str, str]]) -> None:
    """Require that every class can be both trained and tested on."""
    if files["part"].isna().all():
        needed = "at least two usable samples of every class, since none can be both trained and tested on"
        counts = files["class"].value_counts().reindex(classes, fill_value=0)
        poor = [f"{name} ({count})" for name, count in counts.items() if count < 2]
    else:
        parts = [part for part in ("train", "validation", "test") if part != "validation" or part in set(files["part"])]
        needed = f"samples of every class in {'both' if len(parts) == 2 else 'all'} parts of the official split"
        counts = pd.crosstab(files["class"], files["part"]).reindex(index=list(classes), columns=parts, fill_value=0)
        poor = [
            f"{name} ({', '.join(f'{row[part]} {part}' for part in parts)})"
            for name, row in counts.iterrows()
            if not row.all()
        ]
    if poor:
        example = f" ({len(skipped):,} files were skipped, such as {': '.join(skipped[-1])})" if skipped else ""
        raise InputError(
            f"expected {needed}, found {list_some(poor)}; remove the folder or add samples of the class{example}"
        )


def list_some(texts: Sequence[str], separator: str = ", ", length: int = 5) -> str:
    more = [f"{len(texts) - length:,} more"] if len(texts) > length else []
    return separator.join([*map(printable, texts[:length]), *more])


def _read_image(path: Path, size: int | None, colour: bool) -> UInt8[np.ndarray, "channel height width"] | str:
    with Image.open(path) as image:
        if image.mode.startswith("I;16"):  # Pillow would clip what is brighter than 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            return f"has pixels of type {image.mode}, whose range is not known; 8 or 16 bits are needed"
        upright = ImageOps.exif_transpose(image).convert("RGB" if colour else "L")
    if size is not None:
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)  # antialiased, unlike that of tensors
    return np.atleast_3d(np.asarray(upright)).transpose(2, 0, 1)
