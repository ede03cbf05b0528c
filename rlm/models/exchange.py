"""The way back: a saved model as modules of sentence-transformers, with a model card."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from rlm.data.phrases import PAD, UNKNOWN, word_pattern
from rlm.encoder import MeanEncoder, OutputStep
from rlm.errors import naming_extras
from rlm.models.folder import check_place
from rlm.sentences import escape_markdown
from rlm.store.read import list_studies, read_origin, read_study
from rlm.verdict import compare_all

SPECIAL = {PAD: "[PAD]", UNKNOWN: "[UNK]"}
FRONT = "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n---\n"
USE = 'from sentence_transformers import SentenceTransformer\n\nSentenceTransformer("FOLDER").encode(["a text"])'


def find_obstacle(encoder: nn.Module, padding: str, has_vectors: bool) -> str | None:
    """Return why the modules of sentence-transformers cannot compute a model's embeddings, or None."""
    inner = encoder.encoder if isinstance(encoder, OutputStep) else encoder
    if not isinstance(inner, MeanEncoder):
        return f"the encoder {type(inner).__name__}, for which it has no modules"
    if padding != "masked":
        return f"{padding} padding, which the encoder reads"
    return "word vectors of words that training has not seen, which are in other files" if has_vectors else None


def to_modules(encoder: nn.Module, state: dict[str, Tensor], words: Sequence[str], max_tokens: int) -> list[nn.Module]:
    """Return modules that read texts and compute their embeddings; word ``i`` has token ``i + 2``."""
    with naming_extras():
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {SPECIAL[token]: token for token in SPECIAL} | {word: i for i, word in enumerate(words, 2) if word}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    invisible = normalizers.Replace(Regex("[\u00ad\u2060\ufeff]"), "")
    spelling = [normalizers.Replace("ё", "е"), normalizers.Replace("’", "'")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), *spelling, invisible])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(word_pattern()), behavior="removed", invert=True)
    tokenizer.enable_truncation(max_tokens)
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


def write_card(title: str, db: str | Path | None, study: int | None) -> str:
    """Compose a model card: what the model is, and what a stored study found about it."""
    lines = [FRONT, f"# {escape_markdown(title)}", f"```python\n{USE}\n```"]
    if db is not None:
        stored = read_study(db, study)
        number = int(list_studies(db).index[0]) if study is None else study
        origin = read_origin(db, number)
        if len(stored.config.arms) > 1 and "scratch" in stored.config.arms:
            verdicts = compare_all(stored.finished.results, clusters=stored.finished.clusters)
            lines += ["## Verdict", *(verdict.text for verdict in verdicts.values())]
        rows = [f"| {name} | {escape_markdown(value)} |" for name, value in origin.items()]
        lines += ["## Study", "\n".join(["| | |", "| --- | --- |", *rows])]
    return "\n\n".join(lines) + "\n"
