"""The arms of a study, from initial to trained weights."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rlm.block import Block, init_block, running_statistics
from rlm.config import ARMS, REDRAW, StudyConfig
from rlm.controls import CONTROLS, check_weights, control_block
from rlm.data.corpus import Corpus
from rlm.data.phrases import PAD, UNKNOWN, Phrases
from rlm.data.word_vectors import read_vectors
from rlm.errors import InputError
from rlm.runtime.device import resolve_device
from rlm.slicer import Slices, pad_slices
from rlm.store.identity import code_of, digest_file, digest_values, read_source
from rlm.training import finetune, train_on_random
from rlm.zoo.encoders import new_encoder
from rlm.zoo.losses import LOSSES

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


class Trained(NamedTuple):
    """
    A block of seeds trained under one arm, each at its best epoch, and the histories of both trainings.

    `start_change` is the largest change of a weight matrix by the arm's start, as a share of its initial norm. `slices`
    are what the arm reads: after pre-training, the words of unlabelled texts, too.
    """

    block: Block
    history: pd.DataFrame
    pretraining: pd.DataFrame
    start_change: Float[np.ndarray, " seed"]
    slices: Sequence[Slices]


def train_arms(
    config: StudyConfig,
    slices: Sequence[Slices],
    arms: Sequence[str],
    seeds: Sequence[int],
    make_encoder: Callable[[int], nn.Module] | None = None,
    progress: bool = False,
    starts: Starts = NO_STARTS,
) -> Iterator[Trained]:
    """
    Initialise seeds, pre-train them unless the arm is scratch, and fine-tune each arm.

    The arms must share one pre-training, see `rlm.config.REDRAW`, and so do the initial weights: a seed's draws depend
    neither on the arm nor on the other seeds. `slices` has one item per seed; `make_encoder` and `starts` are those of
    `run_study`.
    Controls read the words of unlabelled texts as the pre-trained arm does, so that the arms show what these words do.
    """
    initial = init_block(encoder_maker(config, slices[0].phrases, make_encoder), seeds).to(
        resolve_device(config.device)
    )
    pretrained, pretraining, trainer = initial, pd.DataFrame(), None
    (redraw,) = {REDRAW.get(arm) for arm in arms}
    if redraw is not None:
        settings = {"epochs": config.pretrain_epochs, "random_triplets": config.random_triplets, "redraw": redraw}
        if config.pretrain_epochs:
            slices = [one.after_pretraining for one in slices]
        padded = pad_slices(slices, config.pretrain_padding or config.padding)
        trainer, pretraining = train_on_random(initial, padded, config, **settings, progress=progress)
        pretrained = trainer.block
    padded = pad_slices(slices, config.padding)
    for arm in arms:
        start = begin(arm, initial, pretrained, slices, starts)
        if config.transfer is not None:
            start = take_layers(initial, start, list_layers(initial.encoder)[: config.transfer])
        settings = {"max_epochs": config.max_epochs, "patience": config.patience, "stop_by": config.stop_by}
        after = trainer if config.keep_moments and start is pretrained else None
        trained = finetune(start, padded, config, **settings, after=after, progress=progress)
        yield Trained(*trained, pretraining, measure_change(initial, start), slices)


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


def _read_weights(path: str | Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"expected a state dict in a .safetensors file at {path}, found: {error}; for the folder of a saved model "
            "give rlm.load_model(folder)"
        ) from error


def check_starts(config: StudyConfig, make: Callable[[], nn.Module], slices: Slices, starts: Starts) -> None:
    """Raise InputError for starts, or layers to be transferred, that cannot be used; functions are not called."""
    check_transfer(make(), config.transfer, config.encoder)
    for name, given in starts.items():
        if not name or name in ARMS or name in config.arms:
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


def list_layers(encoder: nn.Module) -> list[str]:
    """List the names of an encoder's layers: its modules with direct weights, in order; "" is the encoder itself."""
    known = [*dict(encoder.named_parameters()), *running_statistics(encoder)]
    owners = {name.rpartition(".")[0] for name in known}
    return [name for name, _ in encoder.named_modules() if name in owners]


def check_transfer(encoder: nn.Module, layers: int | None, name: str) -> None:
    """Raise InputError if an encoder has fewer layers than are to be transferred."""
    most = len(list_layers(encoder))
    if layers is not None and layers > most:
        raise InputError(f"expected to transfer at most {most} layers, which {name} has, found {layers}; give fewer")


def take_layers(initial: Block, start: Block, names: Sequence[str]) -> Block:
    """Give the named layers the weights of `start`; the others keep the initial ones."""
    weights = {
        name: (start.weights[name] if name.rpartition(".")[0] in names else weight).clone()
        for name, weight in initial.weights.items()
    }
    return dataclasses.replace(initial, weights=weights)


def encoder_maker(
    config: StudyConfig, phrases: Phrases, make_encoder: Callable[[int], nn.Module] | None = None
) -> Callable[[], nn.Module]:
    """Return a function that makes the encoder of a study, with newly drawn weights and the output step of its loss."""
    if make_encoder is not None:
        return partial(make_encoder, len(phrases.words) + 2)
    output = LOSSES[config.loss].output
    make = partial(new_encoder, config.encoder, phrases.words, config.word_dim, config.dim, output)
    make = partial(make, initialisation=config.initialisation)
    if config.word_vectors is None:
        return make
    paths = [path for path in (config.word_vectors, config.character_vectors) if path is not None]
    vectors = torch.from_numpy(np.hstack([read_vectors(Path(path), phrases.words) for path in paths]))
    if vectors.shape[1] != config.word_dim:
        raise InputError(
            f"expected word_dim {vectors.shape[1]}, the size of the vectors in {' and '.join(paths)}, found "
            f"{config.word_dim}; set it to that"
        )
    return partial(make, vectors=vectors, fixed=config.fixed_vectors)


def measure_change(initial: Block, start: Block) -> Float[np.ndarray, " seed"]:
    """Compute each seed's largest change of a weight matrix, relative to its initial norm; biases do not count."""
    changes = [
        torch.linalg.vector_norm((start.weights[name] - before).flatten(1), dim=1)
        / torch.linalg.vector_norm(before.flatten(1), dim=1)
        for name, before in initial.weights.items()
        if before.ndim > 2
    ]
    return (
        torch.stack(changes).nan_to_num(0).amax(dim=0).double().cpu().numpy() if changes else np.zeros(len(start.seeds))
    )


def seeds_that_fit(config: StudyConfig, corpus: Corpus, device: torch.device) -> int:
    """Return how many seeds half of the GPU's free memory holds: weights, moments, gradients, activations, tables."""
    free, _ = torch.cuda.mem_get_info(device)
    weights = len(corpus.phrases.words) * config.word_dim + 8 * config.dim * (config.word_dim + config.dim)
    positions = 3 * config.batch_size * int(corpus.phrases.lengths[0])
    floats = 6 * weights + positions * (config.word_dim + 16 * config.dim)
    table, texts = corpus.phrases.tokens.nbytes, 0 if corpus.texts is None else corpus.texts.nbytes
    more = 3 * texts + (table if config.split == "per_seed" else 0)
    return max(1, (free // 2 - table) // (4 * floats + more))
