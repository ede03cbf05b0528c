"""Settings: the config of a study, the recipe of a training run, and the names of all options."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from rlm.errors import InputError, Mapped, Settings
from rlm.variants import ARMS, BASELINE, Arm, find_variant, parse_arm

Role = Literal["anchor", "positive", "negative", "relevance", "text", "label"]
Layout = Literal["columns", "blocks", "groups"]
EncoderName = Literal["lstm", "bilstm", "lstm(lstm)", "lstm(cnn)", "transformer", "dssm", "mean"]
Loss = Literal[
    "triplet", "cosine_triplet", "facenet", "lossless", "dssm", "in_batch", "contrastive", "cosine_regression"
]
HeadName = Literal["bilinear", "mahalanobis", "classifier"]
Mining = Literal["all", "semi_hard", "hard"]
Batching = Literal["flat", "grouped"]
Optimizer = Literal["adam", "rowwise_adam", "nadam"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cpu", "cuda"]
StopBy = Literal["accuracy", "loss"]
Padding = Literal["masked", "left", "right"]
Initialisation = Literal["torch", "keras"]
SplitBy = Literal["cluster", "triplet"]
MetricName = Literal[
    "test_accuracy", "roc_auc", "top_1", "top_5", "top_10", "mean_reciprocal_rank", "ndcg_at_10", "map_at_r"
]

ROLES: tuple[Role, ...] = get_args(Role)
KINDS = ("random", "similar", "manual", "cascade")
FRACTIONS = (0.70, 0.21, 0.09)
MIN_COUNT = 2  # rare words train the vector of the unknown word, see docs/unknown_words.md
MARGINS: dict[Loss, float] = {"triplet": 0.5, "cosine_triplet": 0.5, "facenet": 0.2, "contrastive": 1.0}
YOUR_TABLE = "data"  # what a config calls data and texts that are handed over
TRANSFER = "Number of the encoder's layers that keep their pre-trained weights, from the first; all by default."
DEFAULT_SEEDS, MOST_SEEDS, MOST_TRIPLETS, MOST_TOKENS = 30, 1_000_000, 100_000_000, 512


def check_kinds(kinds: Mapping[str, float | int]) -> None:
    """Raise InputError unless `kinds` are shares of known kinds of negatives with the sum 1."""
    if not set(kinds) <= set(KINDS) or min(kinds.values(), default=-1) < 0 or abs(sum(kinds.values()) - 1) > 1e-5:
        raise InputError(f"expected shares of {', '.join(KINDS)} negatives with the sum 1, found {dict(kinds)}")


def check_loss(loss: str, margin: float | int | None = None, mining: str | None = None) -> None:
    """Raise InputError if there is no such loss, or it has no such setting."""
    if loss not in get_args(Loss):
        raise InputError(f"expected a loss of {', '.join(get_args(Loss))}, found {loss!r}; choose one of them")
    if margin is not None and loss not in MARGINS:
        raise InputError(f"expected no margin for the loss {loss}, which has none, found {margin}; omit it")
    if mining is not None and loss != "facenet":
        raise InputError(f"expected no mining for the loss {loss}, found {mining!r}; omit it, or use facenet")


class ReadOptions(Settings):
    """
    How to read your own data; `rlm.read` takes the same options.

    Examples
    --------
    >>> import rlm
    >>> rlm.data.ReadOptions(columns={"anchor": "fact"}, delimiter=";").delimiter
    ';'
    """

    columns: Mapped[str] = Field({}, description="Names of the file's columns, as anchor=fact,positive=question.")
    layout: Layout = Field(
        "columns",
        description="columns: a table. blocks: lines T: premise, then Q: question. groups: lines that mean the same, "
        "except those marked (-). Empty lines or lines of hyphens separate blocks and groups.",
    )
    encoding: str | None = Field(None, description="Encoding of text, such as cp1251; detected by default.")
    delimiter: str | None = Field(None, pattern=r"^[^\r\n]$", description="Separator of cells; detected by default.")
    quotechar: str | None = Field(
        None, max_length=1, description='Encloses cells; " by default, and nothing where tabs separate the cells.'
    )
    irrelevant: str | None = Field(None, description="File of irrelevant premise|question lines, for manual negatives.")
    subset: str | None = Field(None, description="Configuration of a Hugging Face dataset.")
    part: str = Field("train", description="Split of a Hugging Face dataset.")

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = [role for role in columns if role not in ROLES]
        if unknown:
            raise InputError(f"expected columns for {', '.join(ROLES)}; found {unknown[0]!r}")
        return columns


READ_AS_IT_IS = ReadOptions()


class Recipe(Settings):
    """
    The settings that `rlm.pretrain` and `rlm.finetune` share; a `StudyConfig` has them, too.

    Examples
    --------
    >>> import rlm
    >>> rlm.Recipe(loss="facenet", mining="hard").batch_size
    150
    """

    loss: Loss = Field(
        "triplet",
        description="What to minimise: triplet (hinge on squared distances), cosine_triplet (on cosines), facenet "
        "(with negatives mined from the batch), lossless (logarithms), dssm (softmax over sampled negatives), in_batch "
        "(softmax over the whole batch), contrastive (pairs and a margin), cosine_regression (pairs, against 1 and 0).",
    )
    margin: float | None = Field(
        None,
        ge=1e-6,
        le=100,
        description=f"Margin; by default {', '.join(f'{margin:g} for {loss}' for loss, margin in MARGINS.items())}.",
    )
    mining: Mining | None = Field(
        None,
        description="Negatives of facenet: all, hard (nearest), or by default semi_hard (nearest beyond positive).",
    )
    learning_rate: float = Field(1e-3, ge=1e-7, le=1, description="Learning rate of the optimizer.")
    batch_size: int = Field(150, ge=1, le=100_000, description="Triplets per step and seed.")
    epoch_triplets: int | None = Field(None, ge=1, le=MOST_TRIPLETS, description="Triplets per epoch; all by default.")
    batching: Batching = Field(
        "flat",
        description="flat: triplets in random order. grouped: the triplets of a pair follow each other, so that a "
        "batch has fewer different phrases; up to twice as fast, and another random order.",
    )
    optimizer: Optimizer = Field(
        "adam",
        description="adam, or rowwise_adam: word vectors move only in steps that use them, at a cost that does not "
        "grow with the vocabulary; or nadam, Adam with Nesterov momentum.",
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="Share of a weight, times the learning rate, that a step removes; as in AdamW."
    )
    warmup: int = Field(0, ge=0, le=1_000_000, description="Steps in which the learning rate rises to its value.")
    clip: float | None = Field(None, gt=0, description="Largest norm of a seed's gradient; larger ones are scaled.")
    precision: Precision = Field(
        "fp32",
        description="fp32, or bf16: matrix products of training steps in bfloat16, where that is faster (LSTMs on CPUs "
        "with AMX, GPUs since Ampere); elsewhere in float32.",
    )
    compile: bool | None = Field(None, description="Compile training steps; by default in long runs, if it saves time.")

    @model_validator(mode="after")
    def _check_recipe(self) -> "Recipe":
        check_loss(self.loss, self.margin, self.mining)
        return self


_NEEDED = dict.fromkeys(["fixed_vectors", "character_vectors"], "word_vectors") | {"pretrain_reading": "pretrain_texts"}


def _list_arms(are_controls: bool) -> str:
    return ", ".join(f"{name} ({arm.meaning})" for name, arm in ARMS.items() if arm.is_control == are_controls)


class _Encoding(Settings):
    """The fields of `StudyConfig` that come before those of `Recipe`: data, arms and encoder."""

    dataset: str = Field(
        "chatterbot-english",
        min_length=1,
        examples=["chatterbot-english", "chatterbot-russian", "pqa"],
        description="chatterbot-LANGUAGE, pqa, or your own data: a path, or the id of a Hugging Face dataset.",
    )
    reading: Annotated[ReadOptions, Parameter(name="*")] = Field(READ_AS_IT_IS, description="How to read your data.")
    arms: tuple[Annotated[Arm | str, AfterValidator(lambda arm: parse_arm(arm).label)], ...] = Field(
        ("scratch", "pretrained"),
        min_length=1,
        description="Ways to reach the weights that fine-tuning starts from: "
        f"{_list_arms(are_controls=False)}, and controls: {_list_arms(are_controls=True)}. Or any of them with other "
        'settings of encoder and training, as "wide: dim=128" or "wide: pretrained, dim=128".',
    )
    encoder: EncoderName = Field(
        "lstm",
        description="Encoder of a phrase: lstm (reads backwards), bilstm, lstm(lstm) (two layers), lstm(cnn) "
        "(convolutions under LSTMs), transformer, dssm (letter trigrams) or mean (of word vectors).",
    )
    layers: int | None = Field(None, ge=1, le=48, description="Layers of the encoder transformer; 2 by default.")
    dropout: float | None = Field(None, ge=0, le=0.99, description="Dropout in the transformer; 0.1 by default.")
    unseen_words: Literal["unknown", "kept"] | None = Field(
        None,
        description="Words that training does not see: unknown (all of them one word), or kept, for an encoder that "
        "knows them from elsewhere; by default kept for dssm, which knows their letters, and with word_vectors.",
    )
    min_count: int = Field(
        MIN_COUNT, ge=1, le=1000, description="Training phrases that a word must occur in; rarer ones are unknown."
    )
    word_vectors: str | None = Field(
        None,
        min_length=1,
        description="File of word vectors to start from, instead of random ones: word2vec text or .bin, GloVe text, "
        "fastText .vec or .bin, which knows unknown words by their character n-grams. word_dim is their size.",
    )
    character_vectors: str | None = Field(
        None,
        min_length=1,
        description="Second file of word vectors, such as ones made from characters: a word has the vectors of both "
        "files end to end, zeros where one lacks it. word_dim is the sum of their sizes.",
    )
    fixed_vectors: bool = Field(False, description="Keep the vectors of word_vectors fixed.")
    initialisation: Initialisation = Field(
        "torch",
        description="Initial weights of layers, but not of words: as in PyTorch, or as in Keras (Glorot uniform, "
        "recurrent ones orthogonal, biases 0, of the forget gate 1).",
    )
    word_dim: int = Field(32, ge=1, le=1024, description="Size of a word vector.")
    dim: int = Field(64, ge=1, le=4096, description="Size of an embedding; of bilstm, of either half.")
    max_tokens: int = Field(32, ge=1, le=MOST_TOKENS, description="Longer phrases are cut to this many tokens.")
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="tokenizer.json of the library tokenizers, whose pieces are the tokens; by default words are.",
    )
    padding: Padding = Field(
        "masked", description="Padding in training and validation: masked, or left or right and read as unknown words."
    )
    pretrain_padding: Padding | None = Field(None, description="Padding in pre-training; by default as padding.")
    test_padding: Padding | None = Field(None, description="Padding in test and saved models; by default as padding.")


class StudyConfig(Recipe, _Encoding):
    """
    All settings that determine the numbers of a study, except its seeds.

    Examples
    --------
    >>> import rlm
    >>> config = rlm.StudyConfig(encoder="mean", pretrain_epochs=2)
    >>> rlm.StudyConfig.model_validate_json(config.model_dump_json()) == config
    True
    """

    pretrain_texts: str | None = Field(
        None,
        min_length=1,
        description="Unlabelled texts that pre-training draws random triplets from, instead of the training triplets: "
        "a .txt file of one phrase per line, a table with a column text or anchor, positive, negative, or a dataset. "
        "Phrases of the validation and test splits are excluded.",
    )
    pretrain_reading: ReadOptions = Field(READ_AS_IT_IS, description="How to read pretrain_texts.")
    epoch_triplets: int = Field(
        20_000, ge=1, le=MOST_TRIPLETS, description="Most triplets per epoch of fine-tuning, each time a new choice."
    )
    pretrain_epochs: int = Field(10, ge=0, le=10_000, description="Epochs of random triplets.")
    random_triplets: int | None = Field(
        None, ge=1, le=MOST_TRIPLETS, description="Random triplets per epoch; by default one per text or triplet."
    )
    transfer: int | None = Field(None, ge=0, description=TRANSFER)
    keep_moments: bool = Field(False, description="Fine-tune with the optimizer's moments from pre-training.")
    max_epochs: int = Field(50, ge=0, le=10_000, description="Maximum number of epochs of fine-tuning.")
    patience: int = Field(20, ge=1, le=10_000, description="A seed stops after this many epochs without a new best.")
    stop_by: StopBy = Field("accuracy", description="What is best: the highest validation accuracy or the lowest loss.")
    device: Device = Field("auto", description="Where to train; auto takes a GPU if there is one. Draws are the same.")
    negatives: int = Field(5, ge=1, le=1000, description="Negatives per pair, for data without negatives.")
    negative_kinds: Mapped[float] | None = Field(
        None,
        description="Shares of random, similar (most alike by character trigrams), manual (known to be irrelevant) "
        "and cascade (manual, else with a word of the anchor, else random) negatives, as similar=0.5,random=0.5; all "
        "manual where data have a column relevance, else all random.",
    )
    fractions: tuple[float, float, float] = Field(
        FRACTIONS, description="Shares of the pairs for training, validation and test; their sum is 1."
    )
    train_fraction: float = Field(
        1.0, gt=0, le=1, description="Share of the training pairs to use; the validation and test splits stay the same."
    )
    split: Literal["fixed", "per_seed"] = Field(
        "fixed", description="One split for all seeds, or one per seed, the same for all arms of the seed."
    )
    split_by: SplitBy = Field(
        "cluster",
        description="What is assigned to a split as a whole: a cluster of relevant phrases; or a triplet, so that "
        "phrases leak from training to the test.",
    )
    split_seed: int = Field(0, ge=0, description="Seed of the fixed split.")

    @field_validator("negative_kinds")
    @classmethod
    def _check_negative_kinds(cls, kinds: dict[str, float] | None) -> dict[str, float] | None:
        if kinds is not None:
            check_kinds(kinds)
        return kinds

    @model_validator(mode="after")
    def _check_study(self) -> "StudyConfig":
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise InputError(f"expected three positive fractions with the sum 1, found {self.fractions}")
        variants = {arm: parse_arm(arm) for arm in self.arms}
        if len({one.name or arm for arm, one in variants.items()}) < len(self.arms):
            raise InputError(f"expected every arm once, found {', '.join(self.arms)}; give each its own name")
        for name, other in _NEEDED.items():
            if getattr(self, name) != type(self).model_fields[name].default and not getattr(self, other):
                raise InputError(f"expected {other}, which {name} needs, found none; give a file")
        if self.keep_moments and self.transfer is not None:
            raise InputError("expected no transfer with keep_moments, which needs the moments of all layers; omit one")
        if self.encoder != "transformer" and (self.layers, self.dropout) != (None, None):
            raise InputError(f"expected the encoder transformer for layers or dropout, found {self.encoder}; omit it")
        if self.encoder == "dssm" and (self.word_vectors or self.tokenizer):
            raise InputError("expected no word_vectors or tokenizer for the encoder dssm, which reads letters; omit it")
        for arm, variant in variants.items():
            if variant.changes:
                self.of(arm)
        return self

    def of(self, arm: str) -> "StudyConfig":
        """Return the config of one arm: with the settings that it changes, and the built-in arm that it starts as."""
        variant = find_variant(arm)
        if variant.start not in ARMS:
            return self
        changes: dict[str, Any] = {name: None if text == "none" else text for name, text in variant.changes.items()}
        try:
            return StudyConfig.model_validate(dict(self) | changes | {"arms": (variant.start,)})
        except ValidationError as error:
            one = error.errors()[0]
            wrong = ": ".join([*map(str, one["loc"][:1]), one["msg"].removeprefix("Value error, ")])
            raise InputError(f"expected settings that fit in the arm {arm}, found {wrong}") from error

    @property
    def keeps_unseen_words(self) -> bool:
        """True if words that training does not see keep their tokens, see `unseen_words`."""
        if self.unseen_words:
            return self.unseen_words == "kept"
        return self.encoder == "dssm" or self.word_vectors is not None

    @property
    def final_padding(self) -> Padding:
        """Padding in the test and of a saved model."""
        return self.test_padding or self.padding


class Plan(Settings):
    """How many seeds a study takes, which its config leaves open."""

    seeds: int = Field(DEFAULT_SEEDS, ge=1, le=MOST_SEEDS, description="Number of paired seeds.")
    metric: Annotated[MetricName, BeforeValidator(lambda name: re.sub("^recall_at_", "top_", str(name)))] = Field(
        "test_accuracy", description="Column that the verdict and until judge. recall_at_K means top_K."
    )
    until: float | None = Field(
        None, gt=0, le=2, description="Stop at this width of the confidence sequence (0.02: two points); else run all."
    )
    baseline: str = Field(BASELINE, min_length=1, description="The arm that the others are compared with.")
    same_within: float = Field(
        0.01, gt=0, le=1, description="Largest difference that counts as the same (0.01: a point)."
    )
