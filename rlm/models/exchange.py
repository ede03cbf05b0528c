"""The way back: a saved model as modules of sentence-transformers with a model card, or as a graph of ONNX."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rlm.data.phrases import PAD, UNKNOWN, word_pattern
from rlm.encoder import OutputStep
from rlm.errors import InputError, naming_extras
from rlm.models.folder import check_place
from rlm.models.graph import to_graph
from rlm.runtime.atomic import write_folder
from rlm.sentences import escape_markdown
from rlm.store.read import list_studies, read_origin, read_study
from rlm.verdict import compare_all
from rlm.zoo.encoders import ENCODERS

if TYPE_CHECKING:
    from rlm.models.model import Model

SPECIAL = {PAD: "[PAD]", UNKNOWN: "[UNK]"}
FRONT = "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n---\n"
USE = 'from sentence_transformers import SentenceTransformer\n\nSentenceTransformer("FOLDER").encode(["a text"])'


def take_state(model: "Model", tool: str, kinds: Collection[type[nn.Module]]) -> dict[str, Tensor]:
    """Return the weights of a model that another tool can compute, since it knows some kinds of encoders."""
    encoder, padding = model.block.encoder, model.config.final_padding
    inner = encoder.encoder if isinstance(encoder, OutputStep) else encoder
    obstacle = None
    if type(inner) not in kinds:
        obstacle = f"the encoder {type(inner).__name__}, for which it has no modules"
    elif padding != "masked":
        obstacle = f"{padding} padding, which the encoder reads"
    elif model.config.tokenizer:
        obstacle = "tokens that are pieces of words"
    elif model.new_words.files:
        obstacle = "word vectors of words that training has not seen, which are in other files"
    if obstacle:
        names = " or ".join(name for name, kind in ENCODERS.items() if kind in kinds)
        raise InputError(
            f"expected a model whose embeddings {tool} can compute, found {obstacle}; use the encoder {names} with "
            "masked padding and without word_vectors or tokenizer, or load the model with rlm.load_model"
        )
    state = encoder.state_dict() | {name: weight[0] for name, weight in model.block.weights.items()}
    return {name.removeprefix("encoder."): weight for name, weight in state.items()}


def make_tokenizer(words: Sequence[str], max_tokens: int) -> Any:  # noqa: ANN401
    """Return a tokenizer of the package tokenizers that reads texts as this one; word ``i`` has token ``i + 2``."""
    with naming_extras():
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {SPECIAL[token]: token for token in SPECIAL} | {word: i for i, word in enumerate(words, 2) if word}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    invisible = normalizers.Replace(Regex("[\u00ad\u2060\ufeff]"), "")
    spelling = [normalizers.Replace("ё", "е"), normalizers.Replace("’", "'")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), *spelling, invisible])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(word_pattern()), behavior="removed", invert=True)
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def to_modules(encoder: nn.Module, state: dict[str, Tensor], words: Sequence[str], max_tokens: int) -> list[nn.Module]:
    """Return modules that read texts and compute their embeddings."""
    with naming_extras():
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    tokenizer = make_tokenizer(words, max_tokens)
    output = encoder.output if isinstance(encoder, OutputStep) else None
    last = {"activation_function": nn.Sigmoid() if output == "sigmoid" else nn.Identity()}
    last |= {"init_weight": state["output.weight"], "init_bias": state["output.bias"]}
    dense = Dense(*reversed(state["output.weight"].shape), **last)
    modules = [StaticEmbedding(tokenizer, state["words.weight"].clone()), dense]
    return [*modules, Normalize()] if output == "unit" else modules


def write_modules(folder: str | Path, modules: Sequence[nn.Module], card: str) -> None:
    """Write modules and their card into a new folder."""
    from sentence_transformers import SentenceTransformer

    folder = check_place(folder, overwrite=False)
    SentenceTransformer(modules=list(modules), device="cpu").save(str(folder), create_model_card=False)
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_onnx(
    folder: str | Path, encoder: nn.Module, state: dict[str, Tensor], words: Sequence[str], max_tokens: int
) -> None:
    """Write the graph of an encoder and its tokenizer into a new folder."""
    tokenizer = make_tokenizer(words, max_tokens)
    tokenizer.enable_padding(pad_id=0, pad_token=SPECIAL[PAD])
    contents = {"model.onnx": to_graph(encoder, state), "tokenizer.json": tokenizer.to_str(pretty=True).encode()}
    write_folder(check_place(folder, overwrite=False), contents)


def write_card(title: str, db: str | Path | None, study: int | None) -> str:
    """Compose a model card: what the model is, and what a stored study found about it."""
    lines = [FRONT, f"# {escape_markdown(title)}", f"```python\n{USE}\n```"]
    if db is not None:
        stored = read_study(db, study)
        number = int(list_studies(db).index[0]) if study is None else study
        origin = read_origin(db, number)
        results = stored.finished.results
        if len(stored.config.arms) > 1 and "scratch" in stored.config.arms:
            verdicts = compare_all(results, metric=results.attrs["metric"], clusters=stored.finished.clusters)
            lines += ["## Verdict", *(verdict.text for verdict in verdicts.values())]
        rows = [f"| {name} | {escape_markdown(value)} |" for name, value in origin.items()]
        lines += ["## Study", "\n".join(["| | |", "| --- | --- |", *rows])]
    return "\n\n".join(lines) + "\n"
