"""Perplexity against transformers, F1 by hand, and questions in the layouts people have."""

from __future__ import annotations

import json
import math
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.quality import (
    EvalSpec,
    Question,
    continuations,
    dataset_text,
    f1,
    held_out,
    measure,
    perplexity,
    read_questions,
)
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.text.tokenizer import Tokenizer
from tools.demo.texts import split_of

WINDOW, STRIDE, TOKENS = 96, 40, 300


def transformers_perplexity(ids: list[int]) -> float:
    """The recipe of transformers' own documentation: labels of what was scored before are −100."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(open_checkpoint("demo/expert").path, dtype=torch.float32)
    total, count, done = 0.0, 0, 0
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        window = torch.tensor([ids[begin:end]])
        labels = window.clone()
        labels[:, : -(end - done)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += model(window, labels=labels).loss.item() * scored
        count, done = count + scored, end
        if end == len(ids):
            break
    return math.exp(total / count)


def test_perplexity_is_that_of_transformers(session):
    text = held_out()
    tokenizer = Tokenizer.open(open_checkpoint("demo/expert"))
    spec = EvalSpec(
        text,
        lambda tokenizer: continuations(tokenizer, text, 2, answer=8),
        window=WINDOW,
        stride=STRIDE,
        tokens=TOKENS,
        answer=8,
        line=False,
        raw=True,
    )
    model = session.model("demo/expert", False)
    measure(session, model, "float32", [Job("greedy"), Job("beam")], spec)
    rows = session.results.rows
    assert [row["decoding"] for row in rows] == ["greedy", "beam"]
    assert rows[0]["perplexity"] == rows[1]["perplexity"]
    assert rows[0]["scored"] == TOKENS - 1
    assert rows[0]["perplexity"] == pytest.approx(
        transformers_perplexity(tokenizer.encode(text)[:TOKENS]), rel=1e-4
    )
    assert all(0 <= row["f1"] <= 100 and row["tokens_per_second"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("length", "window", "stride"), [(10, 4, 2), (10, 4, 4), (9, 20, 5), (2, 4, 1), (1, 4, 2)]
)
def test_each_token_is_scored_once_with_the_context_promised(length, window, stride):
    def score(ids):
        return [math.nan, *(-float(i) for i in ids[1:])]

    judged = [i for i in range(1, length) if stride < window or i % window]

    found, count = perplexity(score, range(length), window, stride)
    assert count == len(judged)
    if count:
        assert found == pytest.approx(math.exp(sum(judged) / count))
    else:
        assert math.isnan(found)


@pytest.mark.parametrize(
    ("answer", "accepted", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0),
        ("in Paris, France", "Paris", 0.5),
        ("a cat", "the dog", 0.0),
        ("", "Paris", 0.0),
        ("the", "a", 1.0),
        ("Paris Paris", "Paris", 2 / 3),
    ],
)
def test_f1_is_squads(answer, accepted, expected):
    assert f1(answer, accepted) == pytest.approx(expected)


def test_questions_are_read_in_the_layouts_people_have(tmp_path):
    file = tmp_path / "qa.jsonl"
    lines = [
        {"question": "Who?", "answer": "Ada"},
        {"question": "Where?", "answers": ["London", "in London"], "context": "Ada lived in London."},
        {"question": "When?", "answers": {"text": ["1843"], "answer_start": [0]}},
        {"question": "Nobody knows?", "answers": []},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_questions(file, 10) == [
        Question("Question: Who?\nAnswer:", ("Ada",)),
        Question("Ada lived in London.\n\nQuestion: Where?\nAnswer:", ("London", "in London")),
        Question("Question: When?\nAnswer:", ("1843",)),
    ]
    assert len(read_questions(file, 2)) == 2


@pytest.mark.parametrize("line", ['{"question": "Who?"}', "not json", '["question"]'])
def test_a_bad_line_is_named(tmp_path, line):
    file = tmp_path / "qa.jsonl"
    file.write_text('{"question": "Who?", "answer": "Ada"}\n' + line + "\n")
    with pytest.raises(BenchError, match="line 2"):
        read_questions(file, 10)


def test_a_file_without_questions_or_without_a_file_is_refused(tmp_path):
    with pytest.raises(BenchError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl", 10)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(BenchError, match="no questions"):
        read_questions(tmp_path / "empty.jsonl", 10)


def test_held_out_text_is_what_training_left_out():
    library = Path(sysconfig.get_path("stdlib"))
    text = held_out()
    assert len(text) > 50_000
    names = [p.relative_to(library).as_posix() for p in library.glob("*.py")]
    assert names
    for name in names:
        source = (library / name).read_text(encoding="utf-8", errors="replace")
        if len(source) > 2000:
            assert (source in text) == (split_of(name) == "heldout"), name


def test_a_dataset_is_its_texts_with_blank_lines_between(monkeypatch):
    calls = []

    def load_dataset(path, configuration, split):
        calls.append((path, configuration, split))
        if path == "gone":
            raise ConnectionError("no network\nhere.")
        return [{"text": "one"}, {"text": "two"}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert dataset_text("wikitext:wikitext-2-raw-v1") == "one\n\ntwo"
    dataset_text("plain")
    dataset_text("a/b:c:train")
    assert calls == [
        ("wikitext", "wikitext-2-raw-v1", "test"),
        ("plain", None, "test"),
        ("a/b", "c", "train"),
    ]
    with pytest.raises(BenchError, match=r"gone cannot be read \(no network\); give --text"):
        dataset_text("gone")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BenchError, match="install it, or give --text"):
        dataset_text("plain")
