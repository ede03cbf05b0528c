"""
Conservation: each row of a generated file is in the corpus, or in ``dropped`` with its reason, or the file is refused.

What should become of a row is decided by slow loops over a hand-written table of texts, which share nothing with the
package. Files are drawn with a seeded generator; their number is printed.
"""

import csv
import io
import json
import lzma
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import rlm
from rlm.errors import InputError
from rlm.models.questions import read_questions

FILES = {"tables": 400, "json": 400, "blocks": 200, "groups": 200}
# Text and what of it is read: texts of the same words are one phrase, texts without words are none.
WORDS = {
    "red cat": "red cat",
    "Red  cat!": "red cat",
    "red\u00a0cat": "red cat",
    "re\u00add cat": "red cat",
    "a dog, 2 dogs": "a dog 2 dogs",
    "a dog; 2 dogs": "a dog 2 dogs",
    "NA": "na",
    "null": "null",
    "None": "none",
    "nan": "nan",
    "true": "true",
    "1.0": "1 0",
    "5 inch": "5 inch",
    "ёж": "еж",
    "Еж.": "еж",
    "спит кот": "спит кот",
    "one | two": "one two",
    "= 1 + 1": "1 1",
    "": "",
    " ": "",
    "?!": "",
    "--": "",
    **{f"text number {i}": f"text number {i}" for i in range(12)},
}
QUOTED = {'say "no"': "say no", "two\nlines": "two lines", "tab\there": "tab here", '5" pipe': "5 pipe"}
PAIRS = ("anchor", "positive")
LAYOUTS = (PAIRS, (*PAIRS, "negative"), (*PAIRS, "relevance"), ("text", "label"))
STRAYS = {
    PAIRS: ["label", "Relevance", "negative_1", "text"],
    (*PAIRS, "negative"): ["relevance", "label"],
    (*PAIRS, "relevance"): ["negative", "text", "Label"],
    ("text", "label"): ["relevance", "negative", "positive"],
}
KNOWN = WORDS | QUOTED


@pytest.fixture(scope="module", autouse=True)
def counted(request):
    """Print how many files were generated, read and refused."""
    tally = Counter()
    yield tally
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{sum(tally.values()):,} generated files: {dict(sorted(tally.items()))}")


def expect(rows):
    """What should become of rows (number, texts, relevance): pairs or triplets, irrelevant pairs, dropped rows."""
    rows = [(number, tuple(KNOWN[text or ""] for text in texts), relevance) for number, texts, relevance in rows]
    relevant = {frozenset(words[:2]) for _, words, relevance in rows if relevance and all(words)}
    kept, irrelevant, dropped, seen = [], [], [], []
    for number, words, relevance in rows:
        if not all(words):
            dropped.append((number, "without words"))
        elif len({*words}) < len(words):
            dropped.append((number, "same phrase twice"))
        elif not relevance and frozenset(words) in relevant:
            dropped.append((number, "relevant elsewhere"))
        elif (words, relevance) in seen:
            dropped.append((number, "repeated"))
        else:
            (kept if relevance else irrelevant).append(words)
        seen.append((words, relevance))
    return kept, irrelevant, dropped


def expect_labels(rows):
    """Pairs of rows (number, text, label): each text with the next of its label; and how many are in none."""
    counts, members, pairs = Counter(), {}, []
    for number, text, label in rows:
        if not (label or "").strip() or not KNOWN[text or ""]:
            counts["without label or words"] += 1
        elif any(text == other for _, other in members.setdefault(label.strip(), [])):
            counts["repeated with the same label"] += 1
        else:
            members[label.strip()].append((number, text))
    for texts in members.values():
        counts["alone with their label"] += len(texts) == 1
        for place, (number, text) in enumerate(texts):
            if len(texts) > 2 or (len(texts) == 2 and place == 0):
                pairs.append((number, (text, texts[(place + 1) % len(texts)][1]), True))
    return sorted(pairs, key=lambda pair: pair[0]), counts


def become(frame):
    """What has become of the rows of a frame."""
    corpus = rlm.index_corpus(frame)

    def words(rows):
        return [tuple(KNOWN[corpus.phrases.texts[phrase]] for phrase in row) for row in rows]

    dropped = list(corpus.dropped.itertuples(index=False, name=None))
    return (words(corpus.rows), words(corpus.irrelevant), dropped), Counter(corpus.not_read)


def check(tally, kind, path, rows, refusal, frame=None, **options):
    """Read a file and compare: `rows` are those of its layout, `refusal` what the message says where one is due."""
    has_labels = bool(rows) and isinstance(rows[0][1], str | None)
    pairs, counts = expect_labels(rows) if has_labels else (rows, Counter())
    expected = expect(pairs)
    message, found, not_read = None, None, Counter()
    try:
        found, not_read = become(rlm.read(path, **options))
    except InputError as error:
        message = str(error)
    tally[f"{kind}, {'read' if message is None else 'refused'}"] += 1
    if message is not None:  # as it should, or for want of anything to use
        assert refusal in message if refusal is not None else not expected[0], (message, path.read_bytes(), options)
        return
    assert refusal is None, (refusal, path.read_bytes(), options)
    assert found == expected, (path.read_bytes(), options)
    assert +not_read == +counts, (path.read_bytes(), options)
    if frame is not None:
        assert become(frame)[0] == expected


def draw_rows(rng, layout, texts):
    """Cells of a table, by row, and the rows that `check` takes, without their numbers."""
    drawn = []
    for _ in range(rng.integers(1, 9)):
        cells = [texts[rng.integers(len(texts))] for _ in layout]
        if layout[-1] == "relevance":
            cells[-1] = ["1", "0", "true", "False", "1.0", "0.0"][rng.integers(6)]
        if layout[-1] == "label":
            cells[-1] = ["x", "y", "1", "0", " y", ""][rng.integers(6)]
        drawn.append(cells)
    return drawn


def as_row(number, layout, cells):
    """A row as `expect` and `expect_labels` take it."""
    if layout[-1] == "label":
        return number, *cells
    if layout[-1] == "relevance":
        return number, tuple(cells[:2]), str(cells[2]).lower() in ("1", "true", "1.0")
    return number, tuple(cells), True


def write(path, content, encoding, rng):
    """Write a text, perhaps compressed; its path."""
    content = content.encode(encoding)
    kind = ["", "", ".gz", ".bz2", ".zst", ".xz"][rng.integers(6)]
    path = path.with_name(path.name + kind)
    if kind == ".xz":
        path.write_bytes(lzma.compress(content, preset=0))
    else:
        with pa.output_stream(str(path), compression="detect") as out:
            out.write(content)
    return path


def of_encoding(rng, texts):
    """An encoding to write in, the option that names it if it has to be named, and the texts that it can hold."""
    encoding, option = [
        ("utf-8", None),
        ("utf-8", "utf-8"),
        ("utf-8-sig", None),
        ("utf-16", None),
        ("utf-16-le", "utf-16-le"),
        ("cp1251", "cp1251"),
        ("koi8-r", "koi8-r"),
    ][rng.integers(7)]
    usable = [text for text in texts if encoding.startswith("utf") or "\u00ad" not in text]
    return encoding, {} if option is None else {"encoding": option}, usable


def test_rows_of_tables(tmp_path, counted):
    rng = np.random.default_rng(1)
    for turn in range(FILES["tables"]):
        layout = LAYOUTS[rng.integers(len(LAYOUTS))]
        delimiter = "\t,;|"[rng.integers(4)]
        quotechar = [None, '"', "'"][rng.integers(3)]
        has_quotes = quotechar is not None or delimiter != "\t"
        encoding, options, texts = of_encoding(rng, KNOWN if has_quotes else WORDS)
        drawn = draw_rows(rng, layout, texts)
        names = [f"my {role}" if rng.random() < 0.2 and role != "label" else role for role in layout]
        if layout[-1] == "label" and names[0] != "text":
            names[1] = "my label"
        options |= {"columns": dict(zip(layout, names, strict=True))} if names != list(layout) else {}
        header, refusal, others = [*names], None, [["7", "other"][rng.integers(2)] for _ in drawn]
        header.insert(place := int(rng.integers(len(names) + 1)), "id")
        fault = rng.integers(12)
        if fault == 0 and names == list(layout):
            header[place] = refusal = STRAYS[layout][rng.integers(len(STRAYS[layout]))]
            if header[place] == "label":  # a class of pairs is a role, but not with such words
                others, refusal = ["1" for _ in drawn], "is relevance meant"
            refusal = "either negatives or relevance" if {"negative", "relevance"} <= {*header} else refusal
        if fault == 1 and layout[-1] == "relevance":
            drawn[-1][-1] = ["2", "yes", "0.5", "", "NaN"][rng.integers(5)]
            refusal = "expected relevance 1 or 0"
        lines, rows = 1, []
        end = ["\n", "\r\n", "\r"][rng.integers(3)]
        quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL
        style = (
            {"quotechar": quotechar or '"', "quoting": quoting}
            if has_quotes
            else {"quoting": csv.QUOTE_NONE, "quotechar": None}
        )
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator=end, **style)
        writer.writerow(header)
        for cells, other in zip(drawn, others, strict=True):
            if rng.random() < 0.1:
                out.write(end)
                lines += 1
            line = [*cells]
            line.insert(place, other)
            rows.append(as_row(lines + 1, layout, cells))
            writer.writerow(line)
            lines += 1 + sum(cell.count("\n") for cell in cells)
        if fault == 2:
            writer.writerow(["a"] * (len(header) + [-1, 1][rng.integers(2)]))
            refusal = f"in line {lines + 1}"
        if fault == 1 and refusal:
            refusal += f", found {drawn[-1][-1] or 'nan'!r} in line {rows[-1][0]}" if drawn[-1][-1] else ""
        content = out.getvalue()
        path = write(tmp_path / f"{turn}.{['csv', 'tsv', 'txt'][rng.integers(3)]}", content, encoding, rng)
        options |= {"quotechar": quotechar} if quotechar else {}
        frame = None
        if refusal is None:
            frame = pd.DataFrame(drawn, columns=list(layout), index=pd.Index([row[0] for row in rows], name="line"))
        check(counted, "tables", path, rows, refusal, frame, **options)


def as_json(rng, layout, records, kind):
    """A JSON text of records (objects), and the numbers of its rows."""
    dump = {"ensure_ascii": bool(rng.integers(2))}
    numbers = range(1, len(records) + 1)
    if kind == "lines":
        text, numbers = "", []
        for record in records:
            text += ["\n", "  \r\n", "", ""][rng.integers(4)] if text else ""
            numbers.append(text.count("\n") + 1)
            text += json.dumps(record, **dump) + ["\n", "\r\n", " \n"][rng.integers(3)]
        return text, numbers
    if kind == "pretty lines":
        texts = [json.dumps(record, indent=1, **dump) + "\n" for record in records]
        return "".join(texts), [1 + sum(text.count("\n") for text in texts[:place]) for place in range(len(texts))]
    if kind == "array":
        return json.dumps(records, indent=[None, 1][rng.integers(2)], **dump), numbers
    frame = pd.DataFrame(records, dtype=object)
    return frame.to_json(orient=kind, force_ascii=bool(rng.integers(2))), numbers


def test_records_of_json(tmp_path, counted):
    rng = np.random.default_rng(2)
    kinds = [
        "lines",
        "lines",
        "pretty lines",
        "array",
        "columns",
        "index",
        "split",
        "table",
        "lists",
        "sets",
        "queries",
    ]
    for turn in range(FILES["json"]):
        layout, kind = LAYOUTS[rng.integers(len(LAYOUTS))], kinds[rng.integers(len(kinds))]
        encoding, options, texts = of_encoding(rng, KNOWN)
        refusal, fault = None, rng.integers(10)
        if kind in ("lists", "sets", "queries"):
            text, rows, refusal = {"lists": lists, "sets": sets, "queries": queries}[kind](rng, texts, fault)
        else:
            drawn = draw_rows(rng, layout, texts)
            for cells in drawn:
                if rng.random() < 0.1 and layout[-1] != "relevance":
                    cells[rng.integers(len(cells))] = None
                if layout[-1] == "relevance" and rng.random() < 0.5:
                    cells[-1] = str(cells[-1]).lower() in ("1", "true", "1.0")
            records = [dict(zip(layout, cells, strict=True)) | {"id": 7} for cells in drawn]
            is_lines = kind in ("lines", "pretty lines", "array")
            if fault == 0 and is_lines and len(records) > 1:
                place = int(rng.integers(len(records)))
                if rng.integers(2):
                    del records[place][layout[-1]]
                    refusal = "in every line" if layout[-1] in ("positive", "negative") and place else ""
                else:
                    records[place][stray := STRAYS[layout][rng.integers(len(STRAYS[layout]))]] = "1"
                    refusal = "" if stray == "label" else str(stray)
            if fault == 1:
                records[-1][layout[0]] = [3, True, ["a"], {"a": 1}, 0.5][rng.integers(5)]
                refusal = f"expected text as {layout[0]}"
            text, numbers = as_json(rng, layout, records, kind)
            rows = [as_row(number, layout, cells) for number, cells in zip(numbers, drawn, strict=True)]
        path = write(tmp_path / f"{turn}.{['json', 'jsonl', 'ndjson'][rng.integers(3)]}", text, encoding, rng)
        check(counted, f"JSON {kind}", path, rows, refusal, **options)


def lists(rng, texts, fault):
    """Lists as pairs or triplets, one per line or in an array."""
    width = int(rng.integers(2, 4))
    drawn = [[texts[rng.integers(len(texts))] for _ in range(width)] for _ in range(rng.integers(1, 9))]
    rows, refusal = [(number, tuple(cells), True) for number, cells in enumerate(drawn, 1)], None
    if fault == 0:
        drawn.append(["a"] * [1, 4, 5 - width][rng.integers(3)])
        refusal = f" {len(drawn)}"
    text = "\n".join(map(json.dumps, drawn)) if rng.integers(2) else json.dumps(drawn)
    return text, rows, refusal


def sets(rng, texts, fault):
    """Sets of paraphrases, which may be empty."""
    drawn = [[texts[rng.integers(len(texts))] for _ in range(rng.integers(0, 6))] for _ in range(rng.integers(1, 7))]
    records, refusal = [{"set": group} for group in drawn], None
    rows = [(line, text, str(line)) for line, group in enumerate(drawn, 1) for text in group or [None]]
    if fault == 0:
        records.append([{"set": "a"}, {"sets": ["a", "b"]}, {"set": ["a"], "label": "b"}, ["a", "b"]][rng.integers(4)])
        refusal = f"{len(records)}"
    text = "\n".join(map(json.dumps, records)) if rng.integers(2) else json.dumps(records)
    return text, rows, refusal


def queries(rng, texts, fault):
    """Queries with positives and negatives, of which either may be lacking."""

    def some(most):
        return [texts[rng.integers(len(texts))] for _ in range(rng.integers(0, most))]

    records, rows, refusal = [], [], None
    for line in range(1, int(rng.integers(2, 8))):
        query, positives, negatives = texts[rng.integers(len(texts))], some(4), some(3)
        record = {"query": query, "pos": positives} | ({"neg": negatives} if negatives or rng.integers(2) else {})
        record |= {"id": line} if rng.integers(2) else {}
        records.append(record)
        rows += [(line, (query, text), True) for text in positives] + [
            (line, (query, text), False) for text in negatives
        ]
        rows += [] if positives or negatives else [(line, (query, None), True)]
    if fault == 0:
        records.append([{"query": "a"}, {"query": "a", "pos": ["b"], "relevance": 1}, ["a", "b"]][rng.integers(3)])
        refusal = f"{len(records)}"
    if fault == 1:
        records.append({"query": "a", "pos": [3]})
        refusal = "expected text as positive"
    text = "\n".join(map(json.dumps, records)) if rng.integers(2) else json.dumps(records)
    return text, rows, refusal


def test_premises_and_questions_of_blocks(tmp_path, counted):
    rng = np.random.default_rng(3)
    for turn in range(FILES["blocks"]):
        encoding, options, texts = of_encoding(rng, [*WORDS])
        lines, rows, blocks, refusal = [""] * rng.integers(3), [], [], None
        for _ in range(rng.integers(1, 6)):
            premises = [texts[rng.integers(len(texts))] for _ in range(rng.integers(1, 4))]
            lines += [f"T:{[' ', ''][rng.integers(2)]}{premise}" for premise in premises]
            questions = []
            for _ in range(rng.integers(1, 4)):
                questions.append(texts[rng.integers(len(texts))])
                lines.append(f"Q: {questions[-1]}")
                rows += [(len(lines), (premise, questions[-1]), True) for premise in premises]
                lines += ["A: yes"] * rng.integers(2)
            blocks.append((premises, questions))
            lines += [["", "  "][rng.integers(2)]] * rng.integers(1, 3)
        if rng.integers(10) == 0:
            wrong = ["Q: who", "A: I", "what", "t: a", "T: a"][rng.integers(5)]
            lines += ["---"] * (wrong == "Q: who")  # after an empty line it would belong to the last block
            lines.append(wrong)
            refusal = f"line {len(lines) + (wrong == 'T: a')}"
        end = ["\n", "\r\n", "\r"][rng.integers(3)]
        path = write(tmp_path / f"{turn}.txt", end.join(lines), encoding, rng)
        check(counted, "blocks", path, rows, refusal, layout="blocks", **options)
        found, message = None, "found no word in line"
        try:
            found = read_questions(path, options.get("encoding"))
        except InputError as error:
            message = str(error)
        assert "found no word in line" in message or (refusal is not None and refusal in message)
        has_words = all(KNOWN[text] for block in blocks for side in block for text in side)
        assert (found is not None) == (refusal is None and has_words)
        if found is not None:  # the command that evaluates reads the same blocks
            stripped = [([t.strip() for t in premises], [q.strip() for q in asked]) for premises, asked in blocks]
            assert [(block.premises, block.questions) for block in found] == stripped


def test_texts_of_groups(tmp_path, counted):
    rng = np.random.default_rng(4)
    for turn in range(FILES["groups"]):
        encoding, options, texts = of_encoding(rng, [text for text in WORDS if text.strip()])
        groups = [
            [texts[rng.integers(len(texts))] for _ in range(rng.integers(1, 6))] for _ in range(rng.integers(1, 7))
        ]
        if rng.integers(3) == 0:
            content = "\n".join(map(json.dumps, groups))
            rows = [(line, text, str(line)) for line, group in enumerate(groups, 1) for text in group]
            path = write(tmp_path / f"{turn}.jsonl", content, encoding, rng)
        else:
            lines, rows = [""] * rng.integers(3), []
            for number, group in enumerate(groups):
                for text in group:
                    lines.append(text)
                    rows.append((len(lines), text, f"group {number}"))
                lines += [["", " "][rng.integers(2)]] * rng.integers(1, 3)
            path = write(tmp_path / f"{turn}.txt", ["\n", "\r\n", "\r"][rng.integers(3)].join(lines), encoding, rng)
        check(counted, "groups", path, rows, None, layout="groups", **options)
