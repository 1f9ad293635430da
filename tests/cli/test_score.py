"""`edge-tui score`: sums of a text, a line for each token, and sentences where there is nothing to sum up."""

from __future__ import annotations

import io
import json
from math import exp, log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_tui.cli.main import main

TEXT = "def fibonacci(n):\n    return n"


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*args: str, typed: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(typed), isatty=lambda: False))
        status = main(["score", "--model", "demo/amateur", "--device", "cpu", *args])
        return status, *capsys.readouterr()

    return run


def test_the_sums_are_those_of_the_tokens(score: Any, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text(f"{TEXT}\n", encoding="utf-8")
    status, out, _ = score("--json", str(file))
    *tokens, sums = map(json.loads, out.splitlines())
    assert status == 0
    assert "".join(token["text"] for token in tokens) == TEXT
    assert (tokens[0]["logp"], tokens[0]["rank"], tokens[0]["entropy"]) == (None, None, None)
    nats = -sum(token["logp"] for token in tokens[1:])
    size = len(TEXT.encode()) - len(tokens[0]["text"].encode())
    assert (sums["tokens"], sums["bytes"]) == (len(tokens) - 1, size)
    assert sums["nats"] == pytest.approx(nats)
    assert sums["perplexity"] == pytest.approx(exp(nats / sums["tokens"]))
    assert sums["bits_per_byte"] == pytest.approx(nats / log(2) / size)
    status, out, _ = score(typed=f"{TEXT}\n".encode())
    assert out == (
        f"{sums['tokens']} tokens · {nats:.2f} nats · perplexity {sums['perplexity']:.4f}"
        f" · {sums['bits_per_byte']:.4f} bits/byte\n"
    )


@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        (b"x", 1, "there is nothing to score"),
        (b"dog " * 3000, 1, "but the context holds 2048: shorten"),
        (b"\xff", 2, "the text is not UTF-8 (byte 0)"),
    ],
    ids=["one token", "too long", "no UTF-8"],
)
def test_a_text_that_cannot_be_scored_is_a_sentence(
    score: Any, typed: bytes, status: int, words: str
) -> None:
    found, out, error = score(typed=typed)
    assert (found, out) == (status, "")
    assert words in error
    assert error.count("\n") == 1 or "completed as" in error


def test_flags_before_the_command_are_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--model", "demo/amateur", "score", str(tmp_path / "missing")]) == 2
    assert "missing cannot be read" in capsys.readouterr().err
    assert main(["score", "--strategy", "top_p"]) == 2
