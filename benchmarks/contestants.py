"""What is timed: each trains without end on the same triplets, one process on one core or on a GPU."""

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import rlm
from rlm.block import init_block
from rlm.data.phrases import UNKNOWN
from rlm.engine.batches import STEPS_AT_ONCE, PhraseTable, epoch_batches
from rlm.engine.relevance import RelevanceMask
from rlm.engine.trainer import Trainer
from rlm.runtime.device import resolve_precision
from rlm.sampler import RealTriplets
from rlm.slicer import Slices
from rlm.zoo.losses import make_objective
from rlm.zoo.transformer import DROPOUT, LAYERS

WORD_DIM, DIM, BATCH, MARGIN, RATE = 32, 64, 150, 0.5, 1e-3
EPOCH = 20_000
HEADS, MAX_TOKENS = 4, rlm.StudyConfig().max_tokens


@cache
def slices_of(dataset: str) -> Slices:
    return rlm.slice_corpus(rlm.index_corpus(rlm.load(dataset)), seed=0)


def product_work(dataset: str, encoder: str) -> float:
    """Floating-point operations in matrix products of one triplet, forward and backward, each phrase encoded anew."""
    if encoder == "mean":
        return 3 * 3 * 2 * WORD_DIM * DIM
    slices = slices_of(dataset)
    words = slices.phrases.lengths[slices.train].sum(axis=1).mean()
    if encoder == "transformer":  # without attention's own products, which depend on the phrase
        return float(3 * 2 * (words * LAYERS * 12 * WORD_DIM**2 + 3 * WORD_DIM * DIM))
    return float(3 * words * 2 * (WORD_DIM + DIM) * 4 * DIM)


def hand_tokens(slices: Slices) -> tuple[Tensor, Tensor]:
    """Tokens, last word first, zeros after the end; and how many. So nn.LSTM reads as `rlm.zoo.LSTMEncoder` does."""
    lengths = torch.from_numpy(slices.phrases.lengths).long()
    places = torch.arange(slices.tokens.shape[1])
    from_end = (lengths[:, None] - 1 - places).clamp(min=0)
    tokens = torch.from_numpy(slices.tokens).gather(1, from_end)
    return torch.where(places < lengths[:, None], tokens, 0), lengths


class HandEncoder(nn.Module):
    """What one writes by hand: padded tokens, nn.LSTM, nn.TransformerEncoder or a masked mean."""

    def __init__(self, encoder: str, vocabulary_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, WORD_DIM, padding_idx=0)
        with torch.no_grad():
            self.words.weight[UNKNOWN] = 0  # as in rlm.encoder.WordTable: it is never trained
        self.lstm = nn.LSTM(WORD_DIM, DIM, batch_first=True) if encoder == "lstm" else None
        self.output = None if encoder == "lstm" else nn.Linear(WORD_DIM, DIM)
        self.layers = None
        if encoder == "transformer":
            layer = nn.TransformerEncoderLayer(
                WORD_DIM, HEADS, 4 * WORD_DIM, DROPOUT, "gelu", batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WORD_DIM), enable_nested_tensor=False)
            self.places = nn.Embedding(MAX_TOKENS, WORD_DIM)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        if self.layers is not None:
            is_word = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            words = self.words(tokens) + self.places.weight[: tokens.shape[1]]
            read = self.layers(words, src_key_padding_mask=~is_word) * is_word[..., None]
            return self.output(read.sum(dim=1) / lengths[:, None])
        if self.lstm is not None:
            return self.lstm(self.words(tokens))[0][torch.arange(len(tokens), device=tokens.device), lengths - 1]
        return self.output(self.words(tokens).sum(dim=1) / lengths[:, None])


def hand_loop(
    dataset: str, encoder: str, loss: str = "by hand", device: str = "cpu", epoch_triplets: int = EPOCH
) -> Iterator[int]:
    """A pre-tokenised loop with fused Adam; the loss by hand, or pytorch-metric-learning's."""
    slices = slices_of(dataset)
    host_lengths = torch.from_numpy(slices.phrases.lengths)
    tokens, lengths = (part.to(device) for part in hand_tokens(slices))
    model = HandEncoder(encoder, slices.vocabulary_size).to(device)
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    if loss == "pml":
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.losses import TripletMarginLoss
        from pytorch_metric_learning.reducers import MeanReducer

        distance = LpDistance(normalize_embeddings=False, power=2)
        criterion = TripletMarginLoss(margin=MARGIN, distance=distance, reducer=MeanReducer())
    triplets = torch.from_numpy(slices.train)
    while True:
        drawn = triplets[torch.randperm(len(triplets))[:epoch_triplets]].long()
        for mine, rows in zip(drawn.split(BATCH), drawn.to(device).split(BATCH), strict=True):
            longest = int(host_lengths[mine].max())  # known without a wait for a GPU
            phrases = rows.T.reshape(-1)
            embeddings = model(tokens[phrases, :longest], lengths[phrases])
            if loss == "pml":
                n = len(rows)
                places = torch.arange(3 * n, device=device)
                value = criterion(embeddings, places, indices_tuple=(places[:n], places[n : 2 * n], places[2 * n :]))
            else:
                anchor, positive, negative = embeddings.chunk(3)
                gap = (anchor - positive).square().sum(1) - (anchor - negative).square().sum(1)
                value = F.relu(gap + MARGIN).mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            yield len(rows)


def sentence_transformers(dataset: str, encoder: str) -> Iterator[int]:
    """Its trainer, on the texts of the same triplets; a step is counted when the trainer reports its end."""
    os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true", TOKENIZERS_PARALLELISM="false")
    import threading
    from queue import Queue

    import transformers
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
        losses,
    )
    from sentence_transformers.sentence_transformer.modules import LSTM, Dense, Pooling, Transformer, WordEmbeddings
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    transformers.logging.set_verbosity_error()
    slices = slices_of(dataset)
    words = np.array(["", "", *slices.phrases.words], dtype=object)
    texts = [" ".join(words[row[row > 0]]) for row in slices.phrases.tokens]
    chosen = np.random.default_rng(0).permutation(len(slices.train))[:EPOCH]
    columns = {
        name: [texts[phrase] for phrase in slices.train[chosen, place]]
        for place, name in enumerate(("anchor", "positive", "negative"))
    }
    vocabulary = list(dict.fromkeys(words[2:]))
    tokenizer = WhitespaceTokenizer(vocabulary, stop_words=set(), do_lower_case=False)
    vectors = np.random.default_rng(0).normal(0, 0.1, (len(vocabulary), WORD_DIM)).astype("float32")
    modules = [WordEmbeddings(tokenizer, vectors, update_embeddings=True)]
    if encoder == "transformer":
        modules = [Transformer(_new_bert(vocabulary), max_seq_length=MAX_TOKENS)]
    if encoder == "lstm":
        modules += [LSTM(WORD_DIM, DIM, bidirectional=False), Pooling(DIM, pooling_mode="mean")]
    else:
        modules += [Pooling(WORD_DIM, pooling_mode="mean"), Dense(WORD_DIM, DIM, activation_function=nn.Identity())]
    model = SentenceTransformer(modules=modules, device="cpu")
    done: Queue[int] = Queue(maxsize=1)  # the trainer waits until its step has been counted

    class Count(transformers.TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            done.put(BATCH)

    arguments = SentenceTransformerTrainingArguments(
        tempfile.mkdtemp(),
        num_train_epochs=10_000,
        per_device_train_batch_size=BATCH,
        dataloader_drop_last=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        learning_rate=RATE,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        loss=losses.TripletLoss(model, triplet_margin=MARGIN),
        callbacks=[Count()],
    )
    threading.Thread(target=trainer.train, daemon=True).start()
    while True:
        yield done.get()


def _new_bert(words: list[str]) -> str:
    """A folder with a BERT of the size of `rlm.zoo.TransformerEncoder` that knows these words as a whole."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tempfile.mkdtemp()
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    size = {"hidden_size": WORD_DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    config = BertConfig(vocab_size=len(vocabulary), intermediate_size=4 * WORD_DIM, **size)
    BertTokenizerFast(vocab=vocabulary, do_lower_case=False).save_pretrained(folder)
    BertModel(config).save_pretrained(folder)
    return folder


def ours(
    dataset: str,
    encoder: str,
    seeds: int,
    batching: str = "flat",
    optimizer: str = "adam",
    precision: str = "fp32",
    compile: bool = False,
    device: str = "cpu",
    epoch_triplets: int = EPOCH,
) -> Iterator[int]:
    """A block of seeds, as a study trains it."""
    slices = slices_of(dataset)
    block = init_block(lambda: rlm.zoo.ENCODERS[encoder](slices.vocabulary_size, WORD_DIM, DIM), range(seeds)).to(
        device
    )
    source = RealTriplets(slices.train, 0, epoch_triplets, batching, device)
    sources = [source.with_seed(seed) for seed in range(seeds)]
    table = PhraseTable([slices] * seeds, device)
    objective = make_objective(margin=MARGIN)
    relevance, precision = RelevanceMask(device=device), resolve_precision(precision, torch.device(device))
    trainer = Trainer(block, RATE, objective, relevance, optimizer, precision, synchronous=True)
    if compile:
        trainer.compile(epoch_batches(sources, table, 1, BATCH))
    steps = 1 if device == "cpu" else STEPS_AT_ONCE  # between waits for a GPU
    for epoch in count(1):
        batches = epoch_batches(sources, table, epoch, BATCH)
        while some := list(islice(batches, steps)):
            trainer.train(some)
            yield sum(sum(batch.sizes) for batch in some)
