"""Folders of videos: clips from their middle, official splits of UCF101 and HMDB51, and lists as in Kinetics."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rlm.data.textfiles import printable, shorten
from rlm.errors import InputError, naming_extras
from rlm.labels.folders import (
    Listing,
    check_positive,
    decode_files,
    list_files,
    list_some,
    part_of,
    walk,
    why_not,
)
from rlm.labels.samples import Samples

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_UCF101 = re.compile(r"(train|test)list(\d+)\.txt")
_HMDB51 = re.compile(r"(.+)_test_split(\d+)\.txt")
_HMDB51_PARTS = {"0": "unused", "1": "train", "2": "test"}
_KINETICS = ["youtube_id", "time_start", "time_end"]
_PATH_AND_LABEL = re.compile(r"(.+?)[\s,]+([^\s,]+)")
_UCF101_GROUP = re.compile(r"_(g\d+)_c\d+\.")


def load_video_folder(
    folder: str | Path,
    *,
    frames: int = 16,
    every: int = 1,
    size: int = 32,
    colour: bool = False,
    splits: str | Path | None = None,
) -> Samples:
    """
    Load clips from the middle of videos in one sub-folder per class, as in UCF101 and HMDB51, or listed in a file.

    Parameters
    ----------
    folder
        As in `load_image_folder`; with a list of videos, any folder that holds them.
    frames
        Length of a clip, from 1.
    every
        Step between frames of the clip, in frames of the video, from 1.
    size
        Height and width in pixels, from 1, to which all frames are resized.
    colour
        As in `load_image_folder`.
    splits
        A file of an official split; its other files are found beside it. UCF101: ``trainlist01.txt`` or
        ``testlist01.txt``, with lines ``Class/video.avi``, optionally with a number. HMDB51: any
        ``brush_hair_test_split1.txt``, with lines ``video.avi`` and 1 (train), 2 (test) or 0 (unused). Names of videos
        are compared without regard to capitals. Or a list that names the labels, too: a CSV file with the columns
        label and either path or, as in Kinetics, youtube_id, time_start and time_end, for files such as
        ``abc_000010_000020.mp4`` anywhere in the folder; or lines with a path and a label. A column split (train,
        validate, test) is the official split, unless it names one part alone.

    Returns
    -------
    Samples
        Brightness in 0 to 255, uint8. Other files are in ``skipped`` with the reason: they are too short, not in the
        split, missing from the folder (of a list), or as of `load_image_folder`. With names as in UCF101
        (``v_Archery_g01_c02.avi``), clips of one class and number after ``g`` form a group, as clips of one youtube_id
        do: they are from one film.

    Raises
    ------
    InputError
        As in `load_image_folder`; if the files of the split have another form or name missing videos; or if PyAV is
        missing.

    References
    ----------
    Soomro, Zamir and Shah, "UCF101: a dataset of 101 human actions classes from videos in the wild", arXiv 1212.0402;
    Kuehne et al., "HMDB: a large video database for human motion recognition", ICCV 2011.

    Examples
    --------
    >>> import rlm
    >>> rlm.labels.load_video_folder("videos", frames=0)
    Traceback (most recent call last):
    rlm.errors.InputError: expected frames to be an integer of at least 1, found 0
    """
    check_positive(frames=frames, every=every, size=size)
    with naming_extras():
        import av  # noqa: F401
    is_list = splits is not None and Path(splits).is_file() and not _is_split(Path(splits))
    listing = _list_named(Path(folder), Path(splits)) if is_list else list_files(Path(folder), VIDEOS, "videos")
    files = listing.files if splits is None or is_list else _apply_split(listing, Path(splits))
    if "group" not in files or files["group"].isna().all():
        found = [_UCF101_GROUP.search(path.name) for path in files["path"]]
        files["group"] = [match and f"{name}/{match[1]}" for match, name in zip(found, files["class"], strict=True)]
    read = partial(_read_clip, frames=frames, every=every, size=size, colour=colour)
    return decode_files(listing._replace(files=files), read)


def _read_clip(
    path: Path, frames: int, every: int, size: int, colour: bool
) -> UInt8[np.ndarray, "channel frame size size"] | str:
    import av
    from av.video.reformatter import VideoReformatter

    span = (frames - 1) * every + 1
    pixels = "gbrp" if colour else "gray"  # rgb24 would have colour in half the resolution
    # A playlist in disguise must not open addresses. (With `options` PyAV before 18 crashes on MPEG program streams.)
    opened = partial(
        av.open, str(path.absolute()), container_options={"protocol_whitelist": "file"}, metadata_errors="ignore"
    )
    with opened() as container:
        stream = container.streams.best("video")
        if stream is None:
            return "has no video"
        # Packets are nearly always frames, and counting them takes no decoding; headers often lie.
        count = sum(packet.size > 0 for packet in container.demux(stream))
    for _ in range(2):  # the second time, if frames turned out to be fewer than packets, with their true number
        start, clip, resize = max(0, count - span) // 2, [], VideoReformatter().reformat
        with opened() as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1  # type: ignore[union-attr] # the videos are spread over threads already
            count = 0
            for frame in container.decode(stream):
                if count >= start and (count - start) % every == 0:
                    clip.append(resize(frame, size, size, pixels).to_ndarray())
                count += 1
                if len(clip) == frames:
                    return np.stack(clip).reshape(frames, size, size, -1).transpose(3, 0, 1, 2)
        if count < span:
            break
    return f"too short: {count} frames, {span} are needed"


def _apply_split(listing: Listing, splits: Path) -> pd.DataFrame:
    """Return the files that the split trains or tests on, with their parts."""
    files, folder = listing.files, listing.folder
    if files["part"].notna().any():
        raise InputError(
            f"expected one official split, found folders of train and test in {folder} beside {splits}; drop one"
        )
    split = _read_split(splits)
    # In copies of UCF101 the capitals of HandstandPushups are not those of its split.
    parts = {name.casefold(): part for name, part in split.items()}
    keys = [f"{name}/{path.name}".casefold() for name, path in zip(files["class"], files["path"], strict=True)]
    wanted = [name for name, part in split.items() if part != "unused"]
    present = set(keys)
    missing = [name for name in wanted if name.casefold() not in present]
    if missing:
        raise InputError(
            f"expected {len(wanted):,} videos of the split under {folder}, {len(missing):,} are missing: "
            f"{list_some(missing, '; ')}; download them, or remove the lines"
        )
    files["part"] = [parts.get(key, "absent") for key in keys]
    reasons = {"absent": "not in the split", "unused": "unused by the split"}
    left_out = files["part"].isin(list(reasons))
    listing.skipped.extend((name, reasons[part]) for name, part in files.loc[left_out, ["name", "part"]].to_numpy())
    return files[~left_out].copy()


def _read_split(path: Path) -> dict[str, str]:
    """Read ``Class/video`` to train, test or unused."""
    if match := _UCF101.fullmatch(path.name):
        line_form, example = re.compile(r"([^/]+/[^/]+\.\w+)(\s+\d+)?"), "Class/video.avi 1"
        sources = {path.with_name(f"{part}list{match[2]}.txt"): ("", part) for part in ("train", "test")}
    elif match := _HMDB51.fullmatch(path.name):
        line_form, example = re.compile(r"([^/]+\.\w+)\s+([012])"), "video.avi 1"
        siblings = sorted({path, *path.parent.glob(f"*_test_split{match[2]}.txt")})
        named = {source: _HMDB51.fullmatch(source.name) for source in siblings}
        sources = {source: (match[1] + "/", None) for source, match in named.items() if match}
    else:
        raise InputError(
            "expected a split by the name trainlist01.txt or testlist01.txt, as in UCF101, or CLASS_test_split1.txt, "
            f"as in HMDB51, or a list of paths and labels, found no file {path.name}; give one of these files"
        )
    split: dict[str, str] = {}
    for source, (prefix, part) in sources.items():
        try:
            lines = source.read_text("utf-8-sig").split("\n")
        except (OSError, UnicodeError) as error:
            raise InputError(f"expected a file of the split at {source}, found: {error}; put it there") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            match = line_form.fullmatch(line.strip())
            if not match:
                raise InputError(f"{source}:{number}: expected {example!r}, found {shorten(line)}; correct the line")
            name, its_part = prefix + match[1], part or _HMDB51_PARTS[match[2]]
            if split.setdefault(name, its_part) != its_part:
                raise InputError(
                    f"{source}:{number}: expected each video in one part, found {shorten(name)} in {split[name]} and "
                    f"{its_part}; remove one of the lines"
                )
    return split


def _is_split(path: Path) -> bool:
    return bool(_UCF101.fullmatch(path.name) or _HMDB51.fullmatch(path.name))


class _Clip(NamedTuple):
    """A line of a list: key and name of its file, label, part if any, and the video that it is cut from."""

    key: str
    name: str
    label: str
    part: str | None = None
    video: str | None = None


def _list_named(folder: Path, splits: Path) -> Listing:
    """List the videos that a file names, with their labels; they lie anywhere in the folder."""
    if not folder.is_dir():
        raise InputError(f"expected a folder of videos, found none at {folder}; correct the path")
    clips: dict[str, _Clip] = {}
    for place, clip in _read_list(folder, splits):
        if clips.setdefault(clip.key, clip) != clip:
            raise InputError(
                f"{place}: expected each video with one label, found {shorten(clip.name)} again; remove one line"
            )
    parts = {clip.part for clip in clips.values()}
    if len(parts) > 1 and not {"train", "test"} <= parts <= {"train", "validation", "test"}:
        raise InputError(
            f"expected each line of {splits} in train, validate or test, and both train and test, found "
            f"{', '.join(sorted(part or 'none' for part in parts))}; rename parts, or remove the column split"
        )
    found, rows, skipped = defaultdict(list), [], []
    for path in sorted(walk(folder)):
        name = printable(path.relative_to(folder).as_posix())
        reason = why_not(path, folder, VIDEOS, "videos")
        key = path.stem if path.stem in clips else str(path)
        if reason or key not in clips:
            skipped.append((name, reason or "not in the split"))
            continue
        found[key].append((path, name))
        if len(found[key]) > 1:
            places = " and ".join(name for _, name in found[key])
            raise InputError(f"expected one file of each video in {folder}, found {places}; remove one")
    for key, clip in clips.items():
        if not found[key] or not clip.label:
            skipped.append((printable(clip.name), "missing" if clip.label else "has no label"))
            continue
        part = clip.part if len(parts) > 1 else None
        rows.append((*found[key][0], printable(clip.label), part, clip.video))
    files = pd.DataFrame(rows, columns=["path", "name", "class", "part", "group"], dtype=object)
    classes = tuple(sorted(set(files["class"])))
    if len(classes) < 2:
        raise InputError(
            f"expected videos of at least two classes of {splits} in {folder}, found {len(rows):,} of {len(clips):,} "
            f"videos, such as {', '.join(clip.name for clip in list(clips.values())[:1]) or 'none'}; download more, or "
            "give the folder that its paths start from"
        )
    return Listing(folder, "videos", files, classes, skipped)


def _read_list(folder: Path, splits: Path) -> Iterator[tuple[str, _Clip]]:
    """Yield the clips of a list, each with its line: by columns that the first line names, or a path and a label."""
    try:
        lines = splits.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"expected a list of videos in UTF-8 at {splits}, found: {error}; correct it") from error
    header = next(csv.reader(lines[:1]), [])
    if {"label", "youtube_id"} & set(header):
        yield from _read_table(folder, splits, lines, header)
        return
    for number, line in enumerate(lines, 1):
        if match := _PATH_AND_LABEL.fullmatch(line.strip()):
            yield f"{splits}:{number}", _Clip(str(folder / match[1]), match[1], match[2])
        elif line.strip():
            raise InputError(f"{splits}:{number}: expected a path and a label, found {shorten(line)}; correct the line")


def _read_table(folder: Path, splits: Path, lines: Sequence[str], header: Sequence[str]) -> Iterator[tuple[str, _Clip]]:
    columns = ["label", *(["path"] if "path" in header else _KINETICS)]
    if absent := [name for name in columns if name not in header]:
        raise InputError(f"expected the columns {', '.join(columns)} in {splits}, found no {absent[0]}; add it")
    reader = csv.DictReader(lines, restval="")
    for row in reader:
        place, video, label = f"{splits}:{reader.line_num}", row.get("youtube_id"), row["label"].strip()
        part = part_of(row.get("split", ""))
        if row.get("split") and part is None:
            raise InputError(
                f"{place}: expected split train, validate or test, found {shorten(row['split'])}; rename it"
            )
        if "path" in header:
            yield place, _Clip(str(folder / row["path"]), row["path"], label, part, video)
            continue
        try:
            start, end = (int(float(row[name])) for name in _KINETICS[1:])
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{place}: expected seconds in time_start and time_end, found: {error}; correct the line"
            ) from error
        name = f"{video}_{start:06d}_{end:06d}"
        yield place, _Clip(name, f"{name}.mp4", label, part, video)
