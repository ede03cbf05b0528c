"""The config of a study: every number that decides its results; beside it, how many seeds it takes."""

from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlm.data.files import READ_AS_IT_IS, Mapped, Reading
from rlm.data.negatives import check_kinds
from rlm.engine.optimizer import Optimizer
from rlm.errors import InputError
from rlm.sampler import Batching, Redraw
from rlm.slicer import FRACTIONS
from rlm.training import Precision
from rlm.zoo.mining import Mining
from rlm.zoo.objective import Loss, make_objective

Arm = Literal["scratch", "pretrained", "pretrained_once", "rescaled", "shuffled"]
DEFAULT_SEEDS = 30
MOST_SEEDS = 1_000_000
MARGINS: dict[Loss, float] = {"triplet": 0.5, "cosine_triplet": 0.5, "facenet": 0.2, "contrastive": 1.0}
REDRAW: dict[Arm, Redraw] = {
    "pretrained": "epoch",
    "pretrained_once": "once",
    "rescaled": "epoch",
    "shuffled": "epoch",
}


class Plan(BaseModel):
    """How long a study goes on, which its config leaves open."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: int = Field(DEFAULT_SEEDS, ge=1, le=MOST_SEEDS, description="Number of paired seeds.")
    until: float | None = Field(
        None,
        gt=0,
        le=2,
        description="Stop when the interval of the difference, by the confidence sequence, is narrower than this; 0.02 "
        "is two points.",
    )


class StudyConfig(BaseModel):
    """Everything that decides the numbers of a study, except its seeds. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field(
        "chatterbot-english",
        min_length=1,
        examples=["chatterbot-english", "chatterbot-russian", "pqa"],
        description="chatterbot-LANGUAGE, pqa, or data of your own: a path, or the id of a Hugging Face dataset.",
    )
    reading: Annotated[Reading, Parameter(name="*")] = Field(READ_AS_IT_IS, description="How to read data of your own.")
    arms: tuple[Arm, ...] = Field(
        ("scratch", "pretrained"),
        min_length=1,
        description="Ways to reach the weights that fine-tuning starts from: scratch (random init), pretrained (new "
        "random triplets every epoch), pretrained_once (one fixed set of random triplets), and controls: rescaled "
        "(random init with the scale of the pre-trained weights), shuffled (pre-trained weights in random order).",
    )
    encoder: Literal["lstm", "bilstm", "lstm(lstm)", "lstm(cnn)", "dssm", "mean"] = Field(
        "lstm",
        description="Encoder of a phrase: lstm (reads backwards), bilstm, lstm(lstm) (two layers), lstm(cnn) "
        "(convolutions under LSTMs), dssm (letter trigrams) or mean (of word vectors).",
    )
    unseen_words: Literal["unknown", "kept"] | None = Field(
        None,
        description="Words that training does not see: unknown (all of them one word), or kept, for an encoder that "
        "knows them from elsewhere; by default kept for dssm, which knows their letters, and with word_vectors.",
    )
    word_vectors: str | None = Field(
        None,
        min_length=1,
        description="File of word vectors to start from, instead of random ones: word2vec text or .bin, GloVe text, "
        "fastText .vec or .bin, which knows unknown words by their character n-grams. word_dim is their size.",
    )
    fixed_vectors: bool = Field(False, description="Leave the vectors of word_vectors as they are.")
    word_dim: int = Field(32, ge=1, le=1024, description="Size of a word vector.")
    dim: int = Field(64, ge=1, le=4096, description="Size of an embedding; of bilstm, of either half.")
    max_tokens: int = Field(32, ge=1, le=512, description="Longer phrases are cut to this many tokens.")
    loss: Loss = Field(
        "triplet",
        description="What to minimise: triplet (hinge on squared distances), cosine_triplet (on cosines), facenet "
        "(with negatives mined from the batch), lossless (logarithms), dssm (softmax over sampled negatives), "
        "in_batch (softmax over all candidates of the batch), contrastive (pairs, told apart by a margin), "
        "cosine_regression (pairs, against 1 and 0).",
    )
    margin: float | None = Field(
        None,
        ge=1e-6,
        le=100,
        description="Margin of the loss; by default 0.5 for triplet and cosine_triplet, 0.2 for facenet, 1 for "
        "contrastive.",
    )
    mining: Mining | None = Field(
        None,
        description="Negatives of facenet: all, semi_hard (the nearest that is farther away than the positive; the "
        "default) or hard (the nearest).",
    )
    learning_rate: float = Field(1e-3, ge=1e-7, le=1, description="Learning rate of Adam.")
    batch_size: int = Field(150, ge=1, le=100_000, description="Triplets per step and seed.")
    pretrain_epochs: int = Field(10, ge=0, le=10_000, description="Epochs of random triplets.")
    random_triplets: int | None = Field(
        None,
        ge=1,
        le=100_000_000,
        description="Random triplets per epoch; as many as fine-tuning sees by default.",
    )
    max_epochs: int = Field(50, ge=0, le=10_000, description="Most epochs of fine-tuning.")
    patience: int = Field(
        20,
        ge=1,
        le=10_000,
        description="A seed stops after so many epochs without a new best validation accuracy.",
    )
    epoch_triplets: int = Field(
        20_000,
        ge=1,
        le=100_000_000,
        description="An epoch of fine-tuning ends after at most so many triplets, a new random choice each time, so "
        "that early stopping looks often enough on large data.",
    )
    batching: Batching = Field(
        "flat",
        description="flat: triplets in random order. grouped: the triplets of a pair follow each other, so that a "
        "batch has fewer different phrases; up to twice as fast, and another random order.",
    )
    optimizer: Optimizer = Field(
        "adam",
        description="adam, or rowwise_adam: word vectors move only in steps that use them, at a cost that does not "
        "grow with the vocabulary.",
    )
    precision: Precision = Field(
        "fp32",
        description="fp32, or bf16: matrix products of training steps in bfloat16, where there is hardware for it "
        "(AMX, GPUs since Ampere); elsewhere in float32.",
    )
    compile: bool | None = Field(
        None,
        description="Compile training steps; by default where a run is long enough to win back what that takes.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where to train; auto takes a GPU where there is one. The random draws are the same."
    )
    negatives: int = Field(5, ge=1, le=1000, description="Negatives per pair, for data without negatives.")
    negative_kinds: Mapped[float] | None = Field(
        None,
        description="Shares of random, similar (most alike by character trigrams) and manual (known to be irrelevant) "
        "negatives, as similar=0.5,random=0.5; all manual where data have a column relevance, else all random.",
    )
    fractions: tuple[float, float, float] = Field(
        FRACTIONS, description="Shares of the pairs for training, validation and test; their sum is 1."
    )
    train_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="How much of the training pairs to use, pre-training included; the test stays the same.",
    )
    split: Literal["fixed", "per_seed"] = Field(
        "fixed", description="One split for all seeds, or one per seed, the same for all arms of the seed."
    )
    split_seed: int = Field(0, ge=0, description="Seed of the fixed split.")

    @field_validator("negative_kinds")
    @classmethod
    def _check_kinds(cls, kinds: dict[str, float] | None) -> dict[str, float] | None:
        if kinds is not None:
            check_kinds(kinds)
        return kinds

    @model_validator(mode="after")
    def _check(self) -> "StudyConfig":
        if min(self.fractions) <= 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise InputError(f"expected three positive fractions with the sum 1, found {self.fractions}")
        if len(set(self.arms)) < len(self.arms):
            raise InputError(f"expected every arm once, found {', '.join(self.arms)}")
        if self.fixed_vectors and not self.word_vectors:
            raise InputError("expected word_vectors, for fixed_vectors to keep, found none; give a file")
        if self.encoder == "dssm" and self.word_vectors:
            raise InputError("expected no word_vectors for the encoder dssm, which reads letters; leave it out")
        make_objective(self.loss, self.margin, self.mining)  # refuses settings that the loss does not have
        return self

    @property
    def keeps_unseen_words(self) -> bool:
        """Whether words that training does not see stay what they are, see `unseen_words`."""
        if self.unseen_words:
            return self.unseen_words == "kept"
        return self.encoder == "dssm" or self.word_vectors is not None
