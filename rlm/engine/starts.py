"""Where the fine-tuning of an arm starts: pre-trained weights, a control, or a start that the user supplies."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rlm.block import Block, init_block
from rlm.config import StudyConfig
from rlm.controls import CONTROLS, check_weights, control_block
from rlm.data.phrases import PAD, UNKNOWN, Phrases
from rlm.errors import InputError
from rlm.slicer import Slices
from rlm.store.identity import code_of, digest_file, digest_values, read_source
from rlm.variants import ARMS, find_variant

log = logging.getLogger(__name__)
WORDS, OUTPUT_STEP = "words.weight", "encoder."  # the table of word vectors, and the prefix of `OutputStep`


@runtime_checkable
class SavedModel(Protocol):
    """What a start takes from `rlm.models.Model`."""

    @property
    def block(self) -> Block:
        """A block of one seed."""
        ...

    @property
    def words(self) -> Mapping[str, int]:
        """The rows of the table of word vectors."""
        ...


# A function (block, slices) -> block, a saved model, a file of weights, or a control of another start.
Start = Callable[[Block, Sequence[Slices]], Block] | SavedModel | str | Path | tuple[str, str]
Starts = Mapping[str, Start]
NO_STARTS: Starts = {}


def begin(
    arm: str, initial: Block, pretrained: Block, slices: Sequence[Slices] = (), starts: Starts = NO_STARTS
) -> Block:
    """Return the weights that fine-tuning starts from under one arm."""
    given = starts.get(arm)
    if given is None:
        return control_block(CONTROLS[arm], initial, pretrained) if arm in CONTROLS else pretrained
    if isinstance(given, tuple):
        control, other = given
        return control_block(CONTROLS[control], initial, begin(other, initial, pretrained, slices, starts))
    if isinstance(given, SavedModel):
        return _start_from_model(initial, given, slices[0].phrases, arm)
    if not callable(given):
        return _start_from_weights(initial, _read_weights(given), arm)
    # On copies, so that a start that changes weights in place changes those of no other arm.
    made = given(initial.rows(range(len(initial.seeds))), slices)
    if not isinstance(made, Block) or made.seeds != initial.seeds:
        raise InputError(f"expected a block of seeds {initial.seeds} of the start {arm}, found {made!r}; return it")
    check_weights(initial.weights, made.weights, f"the start {arm}")
    return dataclasses.replace(initial, weights=made.weights)


def _start_from_weights(initial: Block, given: Mapping[str, Tensor], arm: str) -> Block:
    """Give every seed of a block the same weights."""
    check_weights({name: weight[0] for name, weight in initial.weights.items()}, given, f"the start {arm}")
    if bad := [name for name, weight in given.items() if not weight.isfinite().all()]:
        raise InputError(f"expected finite numbers in the start {arm}, found others in {bad[0]}; give other weights")
    weights = {name: given[name].to(weight)[None].expand_as(weight).clone() for name, weight in initial.weights.items()}
    return dataclasses.replace(initial, weights=weights)


def _start_from_model(initial: Block, model: SavedModel, phrases: Phrases, arm: str) -> Block:
    """Give every seed the weights of a model; words that the model does not know keep their initial vectors."""
    mine, theirs = _constants(initial), _constants(model.block)
    for name in mine.keys() & theirs.keys():
        if not torch.equal(mine[name].cpu(), theirs[name].cpu()):
            raise InputError(
                f"expected a model with the {name} of this study's encoder for the start {arm}, since its weights "
                "depend on them, found others; train it on the same data, or use an encoder of words"
            )
    names = {name.removeprefix(OUTPUT_STEP): name for name in initial.weights}
    given = {name.removeprefix(OUTPUT_STEP): weight[0] for name, weight in model.block.weights.items()}
    given = {names.get(name, name): weight for name, weight in given.items()}
    tables = {}
    for name in {names.get(WORDS)} & given.keys():
        table, known = given[name], [number for number, word in enumerate(phrases.words) if word in model.words]
        log.info("the start %s knows %d of %d words", arm, len(known), len(phrases.words))
        tables[name] = initial.weights[name].clone()
        if table.shape[1:] == tables[name].shape[2:]:
            rows = [PAD, UNKNOWN, *(model.words[phrases.words[number]] for number in known)]
            tables[name][:, [PAD, UNKNOWN, *(number + 2 for number in known)]] = table[rows].to(tables[name])
            given[name] = tables[name][0]
    start = _start_from_weights(initial, given, arm)
    return dataclasses.replace(start, weights=start.weights | tables)


def _constants(block: Block) -> dict[str, Tensor]:
    """Return what an encoder reads and never changes, such as the trigrams of each word."""
    found = {name: buffer for name, buffer in block.encoder.named_buffers() if name not in block.weights}
    return {name.removeprefix(OUTPUT_STEP): buffer for name, buffer in found.items()}


def _read_weights(path: str | Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"expected a state dict in a .safetensors file at {path}, found: {error}; for the folder of a saved model "
            "give rlm.load_model(folder)"
        ) from error


def check_starts(config: StudyConfig, make: Callable[[], nn.Module], slices: Slices, starts: Starts) -> None:
    """Raise InputError for starts that cannot be used; functions are not called."""
    for name, given in starts.items():
        if not name or find_variant(name).start in ARMS or name in config.arms:
            raise InputError(f"expected another name than those of the other arms for a start, found {name!r}")
        if isinstance(given, tuple):
            known = [other for other, one in starts.items() if not isinstance(one, tuple)]
            if len(given) != 2 or given[0] not in CONTROLS or given[1] not in known:
                raise InputError(
                    f"expected a pair of a control ({', '.join(CONTROLS)}) and another start ({', '.join(known)}) as "
                    f"{name}, found {given!r}"
                )
        elif not callable(given):
            initial = init_block(make, [0])
            begin(name, initial, initial, [slices], starts)


def identify_starts(starts: Starts) -> list[str]:
    """Return what distinguishes the starts in a store: sources and values of functions, weights of the others."""
    found = []
    for name, given in sorted(starts.items()):
        if isinstance(given, tuple):
            content = list(given)
        elif isinstance(given, SavedModel):
            content = [hashlib.sha256(save(dict(given.block.weights))).hexdigest(), dict(given.words)]
        elif callable(given):
            content = [read_source(code_of(given), "start"), digest_values(given, "the start")]
        else:
            content = digest_file(Path(given), "weights")
        found.append(json.dumps([name, content], sort_keys=True))
    return found
