"""The command `rlm labels`: the paper's own comparison, on digits or on images and videos of one's own."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rlm.config import DEFAULT_SEEDS
from rlm.errors import InputError
from rlm.files import write_whole
from rlm.folders import load_image_folder, load_video_folder
from rlm.labels import iter_labels
from rlm.labels_config import LabelsConfig
from rlm.labels_stats import (
    MEMORISED,
    explain_effects,
    explain_shuffles,
    explain_speed,
    summarise_shuffles,
    tabulate_effects,
    tabulate_speed,
)
from rlm.labels_task import load_samples
from rlm.samples import Samples
from rlm.stats import BASELINE, summarise
from rlm.task import join


def labels(
    *,
    config: Annotated[LabelsConfig, Parameter(name="*", negative_iterable=(), consume_multiple=True)] = LabelsConfig(),  # noqa: B008
    images: Path | None = None,
    videos: Path | None = None,
    splits: Path | None = None,
    size: int | None = None,
    colour: bool = False,
    frames: int = 16,
    every: int = 1,
    seeds: int = DEFAULT_SEEDS,
    db: Path | None = None,
    out: Path | None = None,
    jobs: int = -1,
) -> None:
    """
    Memorise random labels, then learn the true ones, with every seed; print the tables and what they support.

    Parameters
    ----------
    config
        What to study.
    images
        Folder of images, one sub-folder per class, instead of --dataset.
    videos
        Folder of videos, one sub-folder per class, as UCF101 and HMDB51 have them; needs rlm[video].
    splits
        With --videos, official split file: trainlist01.txt, or any of HMDB51's *_test_split1.txt.
    size
        Pixels to a side that images and frames are brought to; videos are 32 by default.
    colour
        Three channels instead of one.
    frames
        Of a clip of a video.
    every
        Take every so many frames.
    seeds
        Number of paired seeds.
    db
        SQLite file that keeps every block of seeds as it is finished; the same command goes on where it ended.
    out
        CSV file for the results.
    jobs
        Processes; -1 for one per core.
    """
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"expected a file in an existing folder for --out, found {out}; name a file")
    samples = _load(config, images, videos, splits, size, colour, frames, every)
    print(f"{samples.about['title']}: {len(samples):,} samples, {len(samples.classes)} classes")
    if len(samples.skipped):
        print(f"left out: {len(samples.skipped):,} files")
        print(samples.skipped.groupby("reason").size().to_string(header=False))
    if images or videos:
        config = config.model_copy(update={"dataset": samples.about["name"]})
    finished = join(list(iter_labels(config, seeds, samples=samples, db=db, n_jobs=jobs)), config.arms)
    if out is not None:
        write_whole(out, finished.results.to_csv(index=False))
    if len(finished.memorising):
        known = set(finished.memorising["arm"])
        theirs = finished.memorising["arm"] == ("pretrained" if "pretrained" in known else "pretrained_once")
        memorised = min(MEMORISED, config.until or MEMORISED)
        shuffles = summarise_shuffles(finished.memorising[theirs], memorised)
        print(f"\nepochs until {memorised:.0%} of the random labels are memorised, mean with its 95 % interval\n")
        print(shuffles.to_string(float_format="{:.2f}".format))
        print(f"\n{explain_shuffles(shuffles, memorised)}")
    print("\ntest accuracy over seeds, mean with its 95 % interval\n")
    if BASELINE in config.arms:
        effects, speed = tabulate_effects(finished.results), tabulate_speed(finished.history)
        print(effects.to_string(float_format="{:.3f}".format, na_rep=""))
        print("\nepochs of fine-tuning to 95 % of what scratch reaches\n")
        print(speed.to_string(float_format="{:.2f}".format, na_rep=""))
        if len(config.arms) > 1:
            print(f"\n{explain_effects(effects)}\n\n{explain_speed(speed)}")
        print(
            "\nEvery seed has its own split of the same data; these overlap, so the intervals are somewhat too narrow."
        )
    else:
        for labelled, mine in finished.results.groupby("labelled", sort=False):
            print(f"{labelled or 'all'} labelled samples\n{summarise(mine).to_string(float_format='{:.3f}'.format)}")
    for name, file in (("results", out), ("store", db)):
        if file is not None:
            print(f"\n{name}: {file}")


def _load(
    config: LabelsConfig,
    images: Path | None,
    videos: Path | None,
    splits: Path | None,
    size: int | None,
    colour: bool,
    frames: int,
    every: int,
) -> Samples:
    if images and videos:
        raise InputError("expected --images or --videos, found both; leave one out")
    if splits and not videos:
        raise InputError("expected --videos beside --splits, found none; images take folders train and test instead")
    if images:
        return load_image_folder(images, size=size, colour=colour)
    if videos:
        return load_video_folder(
            videos, frames=frames, every=every, size=32 if size is None else size, colour=colour, splits=splits
        )
    return load_samples(config.dataset)
