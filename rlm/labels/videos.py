"""Folders of videos: clips from their middle, and the official splits of UCF101 and HMDB51."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from rlm.data.textfiles import shorten
from rlm.errors import InputError
from rlm.labels.folders import Listing, check_positive, decode_files, list_files, list_some
from rlm.labels.samples import Samples

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
_UCF101 = re.compile(r"(train|test)list(\d+)\.txt")
_HMDB51 = re.compile(r"(.+)_test_split(\d+)\.txt")
_HMDB51_PARTS = {"0": "unused", "1": "train", "2": "test"}
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
    Load clips from the middle of videos in one sub-folder per class, as in UCF101 and HMDB51.

    Parameters
    ----------
    folder
        As of `load_image_folder`.
    frames
        Length of a clip, from 1.
    every
        Step between frames of the clip, in frames of the video, from 1.
    size
        Height and width in pixels, from 1, to which all frames are resized.
    colour
        As of `load_image_folder`.
    splits
        A file of an official split; its other files are found beside it. UCF101: ``trainlist01.txt`` or
        ``testlist01.txt``, with lines ``Class/video.avi``, optionally with a number. HMDB51: any
        ``brush_hair_test_split1.txt``, with lines ``video.avi`` and 1 (train), 2 (test) or 0 (unused). Names of videos
        are compared without regard to capitals.

    Returns
    -------
    Samples
        Brightness in 0 to 255, uint8. Other files are in ``skipped`` with the reason: they are too short, not in the
        split, or as of `load_image_folder`. With names as in UCF101 (``v_Archery_g01_c02.avi``), clips of one class and
        number after ``g`` form a group: they are from one film.

    Raises
    ------
    InputError
        As of `load_image_folder`; if the files of the split have another form or name missing videos; or if PyAV is
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
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(
            "expected the package av (PyAV), which decodes videos, found none: pip install 'rlm[video]'"
        ) from error
    listing = list_files(Path(folder), VIDEOS, "videos")
    files = listing.files if splits is None else _apply_split(listing, Path(splits))
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
            "expected a split by the name trainlist01.txt or testlist01.txt, as of UCF101, or CLASS_test_split1.txt, "
            f"as of HMDB51, found {path.name}; give one of these files"
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
