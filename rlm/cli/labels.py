"""The command `rlm labels`: the paper's own comparison, on digits or on images and videos of your own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from cyclopts import Parameter

from rlm.cli.output import check_out, gather, print_files, show
from rlm.config import DEFAULT_SEEDS
from rlm.errors import InputError
from rlm.labels.config import LabelsConfig
from rlm.labels.folders import list_some, load_image_folder
from rlm.labels.report import (
    MEMORISED,
    explain_effects,
    explain_shuffles,
    summarise_shuffles,
    tabulate_effects,
    tabulate_speed,
)
from rlm.labels.samples import Parts, Samples
from rlm.labels.study import iter_labels, load_samples
from rlm.labels.videos import load_video_folder
from rlm.sentences import OWN_SPLITS, count
from rlm.variants import BASELINE
from rlm.verdict import summarise


def labels(
    *,
    config: Annotated[LabelsConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = LabelsConfig(),  # noqa: B008
    images: Path | None = None,
    videos: Path | None = None,
    splits: Path | None = None,
    pretrain_images: Path | None = None,
    size: int | None = None,
    colour: bool = False,
    frames: int | None = None,
    every: int | None = None,
    seeds: int = DEFAULT_SEEDS,
    db: Path | None = None,
    out: Path | None = None,
    jobs: int = -1,
) -> None:
    """
    Memorise random labels, then learn the true ones, with every seed; print the tables and what they support.

    Ctrl-C ends the study early: what is finished is kept and judged.

    Parameters
    ----------
    config
        What to study.
    images
        Folder of images, one sub-folder per class, instead of --dataset.
    videos
        Folder of videos, one sub-folder per class, as UCF101 and HMDB51 have them, or any with a list as --splits;
        needs rlm[video].
    splits
        With --videos, official split file: trainlist01.txt, or any of HMDB51's *_test_split1.txt; or a list of files
        and labels: a CSV with columns label,youtube_id,time_start,time_end,split as in Kinetics, or lines "path label".
    pretrain_images
        Folder of images without labels to memorise random labels of, in place of the training samples.
    size
        Pixels to a side that images and frames are brought to; frames have 32 by default.
    colour
        Three channels instead of one.
    frames
        Frames of a clip; 16 by default.
    every
        Step from one frame of a clip to the next in the video; 1 by default.
    seeds
        Number of paired seeds.
    db
        SQLite file that keeps every block of seeds as it is finished; the same command continues where it ended.
    out
        CSV file for the results, rewritten after each finished block of seeds.
    jobs
        Processes; -1 for one per core.
    """
    check_out(out, db)
    shown = {"size": size, "colour": colour or None}
    moving = {"frames": frames, "every": every, "splits": splits}
    samples = _load(config, images, videos, shown, moving)
    pretrain_samples = None
    if pretrain_images is not None:
        size = samples.inputs.shape[-1] if size is None else size
        pretrain_samples = load_image_folder(pretrain_images, size=size, colour=colour, labelled=False)
        print(f"to pre-train on: {len(pretrain_samples):,} images of {pretrain_images}")
    print(f"{samples.about['title']}: {len(samples):,} samples, {len(samples.classes)} classes")
    if samples.official is not None:
        numbers = pd.Series(samples.official).value_counts()
        print(f"given split: {', '.join(f'{numbers[part]:,} {part}' for part in Parts._fields if part in numbers)}")
    if len(samples.skipped):
        print(f"dropped: {count(len(samples.skipped), 'file')}")
        for reason, paths in samples.skipped.groupby("reason")["path"]:
            print(f"{len(paths):,} {reason}: {list_some(paths.tolist())}")
    if images or videos:
        config = config.model_copy(update={"dataset": samples.about["name"]})
    blocks = iter_labels(config, seeds, samples=samples, pretrain_samples=pretrain_samples, db=db, n_jobs=jobs)
    finished, _ = gather(blocks, config.arms, out)
    if len(finished.memorising):
        known = set(finished.memorising["arm"])
        theirs = finished.memorising["arm"] == next(arm for arm in ("pretrained", *config.arms) if arm in known)
        memorised = min(MEMORISED, config.until or MEMORISED)
        shuffles = summarise_shuffles(finished.memorising[theirs], memorised)
        if shuffles["reached"].any():  # else the numbers are only those of epochs that were trained
            print(f"\nepochs until {memorised:.0%} of the random labels are memorised, mean with its 95 % interval\n")
            show("memorising", shuffles, 2)
        print(f"\n{explain_shuffles(shuffles)}")
    print("\ntest accuracy over seeds, mean with its 95 % interval\n")
    if BASELINE in set(finished.results["arm"]):
        effects = tabulate_effects(finished.results)
        speed = tabulate_speed(finished.history)
        show("effects", effects)
        print("\nepochs of fine-tuning to 95 % of what scratch reaches\n")
        show("speed", speed, 2)
        if effects["difference"].notna().any():
            print(f"\n{explain_effects(effects)}\n\n{explain_effects(speed)}")
        if samples.official is None:
            print(f"\n{OWN_SPLITS}")
        else:
            given = "split" if "validation" in samples.official else "test samples"
            print(f"\nAll seeds have the given {given}: the intervals cover the choice of seed, not of test data.")
    else:
        for labelled, mine in finished.results.groupby("labelled", sort=False):
            print(f"{labelled or 'all'} labelled samples")
            show(f"summary of {labelled or 'all'} labelled samples", summarise(mine))
    print_files(finished, out, db)


def _load(
    config: LabelsConfig,
    images: Path | None,
    videos: Path | None,
    shown: Mapping[str, Any],
    moving: Mapping[str, Any],
) -> Samples:
    """From a folder, with the options that are given (others are None), or by name."""
    if images and videos:
        raise InputError("expected --images or --videos, found both; omit one")
    shown, moving = ({name: value for name, value in one.items() if value is not None} for one in (shown, moving))
    if moving and not videos:
        other = "; images take folders train and test instead" if "splits" in moving else ""
        raise InputError(f"expected --videos beside --{next(iter(moving))}, found none{other}")
    if images:
        return load_image_folder(images, **shown)
    if videos:
        return load_video_folder(videos, **shown, **moving)
    if shown:
        raise InputError(f"expected --images or --videos beside --{next(iter(shown))}, found neither")
    return load_samples(config.dataset)
