"""Measures perplexity, F1 and speed by precision and strategy: `edge-tui bench quality`.

Perplexity is teacher-forced: the model reads a text and scores each next token, in windows that overlap so
that no token is scored without context. It belongs to the model and its precision; how tokens are chosen has
no part in it, so rows of one precision repeat it. F1 compares answers with references and belongs to the
whole row.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
import string
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from edge_tui import decoders
from edge_tui.bench.edge_runner import EdgeRunner
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.session import BenchModel, Session
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.engine.port import Precision
from edge_tui.engine.text.tokenizer import Tokenizer
from edge_tui.util import logs

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_HELD_OUT = 25
"""Of a thousand files of the standard library, how many the demo pair never saw."""


@dataclass(frozen=True, slots=True)
class Question:
    """Holds a prompt and the accepted answers, of which one is enough."""

    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """Specifies an evaluation.

    Attributes:
        text: For perplexity.
        questions: For F1; a function of the tokenizer, since continuations are cut by tokens.
        window, stride: Tokens that the model sees at once, and how far the window moves.
        tokens: Most tokens of the text.
        answer: Most tokens of an answer.
        line: True ends an answer with its line.
        raw: True completes the prompt as it stands, chat template or not.
    """

    text: str
    questions: Callable[[Tokenizer], Sequence[Question]]
    window: int = 1024
    stride: int = 512
    tokens: int = 16384
    answer: int = 32
    line: bool = True
    raw: bool = False


def measure(
    session: Session, model: BenchModel, precision: Precision, jobs: Sequence[Job], spec: EvalSpec
) -> None:
    """Evaluates one model at one precision under each strategy; adds rows to the results as they come.

    A row has `tokens_per_second`, the median over the answers, `perplexity` over as many tokens as `scored`
    says, `f1`, the mean over `questions` in percent, and `peak`, the most bytes of GPU memory.

    Raises:
        BenchError: the model cannot be loaded.
    """
    allocated = session.allocated()
    edge = session.edge_runner(model, precision, ignore_eos=False)
    try:
        facts = edge.load()
        session.progress.say("perplexity")
        ids = facts.tokenizer.encode(spec.text)[: spec.tokens]
        window = min(spec.window, facts.context - 1)
        value, scored = perplexity(edge.score, ids, window, min(spec.stride, window))
        questions = spec.questions(facts.tokenizer)
        for number, job in enumerate(jobs):

            def say(place: int, job: Job = job, done: int = number) -> None:
                what = f"{job.title} · question {place + 1}/{len(questions)}"
                session.progress.say(what, (done + place / len(questions)) / len(jobs))

            session.reset_peak()
            mean, rate = nan, nan
            with session.noting_errors(model.title, facts.info.precision, job.title):
                mean, rate = _answer(edge, job, questions, spec, say)
            session.results.add(
                {
                    **session.describe(model, facts),
                    "decoding": job.title,
                    "tokens_per_second": rate,
                    "perplexity": value,
                    "scored": scored,
                    "f1": mean,
                    "questions": len(questions),
                    "peak": session.peak(allocated),
                }
            )
    finally:
        edge.close()
        release_cached_memory()


def _answer(
    edge: EdgeRunner, job: Job, questions: Sequence[Question], spec: EvalSpec, say: Callable[[int], None]
) -> tuple[float, float]:
    """Answers the questions; returns mean F1 in percent, and the median of tokens per second."""
    stop = () if decoders.find(job.strategy).kind == "search" or not spec.line else ("\n",)
    chat = False if spec.raw else None
    scores, rates = [], []
    for place, question in enumerate(questions):
        say(place)
        end = edge.generate(job.request(question.prompt, max_length=spec.answer, stop=stop, chat=chat))
        answer = edge.text.strip().partition("\n")[0] if spec.line else edge.text
        scores.append(max(f1(answer, accepted) for accepted in question.answers))
        if end.seconds > 0 and edge.state.steps > 1:
            rates.append((edge.state.steps - 1) / end.seconds)
    return 100 * statistics.fmean(scores) if scores else nan, statistics.median(rates or [nan])


def perplexity(
    score: Callable[[Sequence[int]], Sequence[float]], ids: Sequence[int], window: int, stride: int
) -> tuple[float, int]:
    """Computes exp of the mean negative log-probability of a text's tokens, each scored once.

    The text's first token is not scored, and with `stride` as large as `window` no window's first is.

    Args:
        score: Computes each token's log-probability after those before it in the window, NaN for the first.
        ids: The text.
        window: Most tokens at once.
        stride: Tokens that the window moves by: each token but the first window's has at least
            `window - stride` tokens before it.

    Returns:
        The perplexity, and the number of tokens it is the mean of; NaN of none.
    """
    total, count, done = 0.0, 0, 1
    for begin in range(0, max(1, len(ids)), stride):
        end = min(begin + window, len(ids))
        fresh = end - done
        if fresh > 0:
            logps = score(ids[begin:end])[1:][-fresh:]
            total, count, done = total - math.fsum(logps), count + len(logps), end
        if end == len(ids):
            break
    return (math.exp(total / count) if count else nan), count


def normalise(text: str) -> str:
    """Normalises as SQuAD does: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def f1(answer: str, accepted: str) -> float:
    """Computes SQuAD's F1 of two answers: the harmonic mean of precision and recall over words, 0 to 1."""
    words, reference = normalise(answer).split(), normalise(accepted).split()
    if not words or not reference:
        return float(words == reference)
    shared = sum((Counter(words) & Counter(reference)).values())
    return 2 * shared / (len(words) + len(reference))


def read_questions(file: Path, limit: int) -> list[Question]:
    """Reads questions from JSON lines: `question`, `answers` (a list) or `answer`, and optionally `context`.

    Raises:
        BenchError: the file or a line of it, which the error names, cannot be used.
    """
    questions = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file} cannot be read ({error}); give a file of JSON lines.") from error
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            answers = entry.get("answers", entry.get("answer"))
            if isinstance(answers, dict):  # SQuAD's own layout
                answers = answers["text"]
            answers = (answers,) if isinstance(answers, str) else tuple(map(str, answers))
            context = f"{entry['context']}\n\n" if entry.get("context") else ""
            prompt = f"{context}Question: {entry['question']}\nAnswer:"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BenchError(
                f'{file.name}, line {place}: each line must be like {{"question": …, "answers": […]}}.'
            ) from error
        if answers:
            questions.append(Question(prompt, answers))
    if not questions:
        raise BenchError(f"{file.name} has no questions with answers.")
    return questions[:limit]


def continuations(
    tokenizer: Tokenizer, text: str, count: int, prompt: int = 96, answer: int = 32
) -> list[Question]:
    """Makes questions of places of a text, evenly spread: the text before each, and its continuation."""
    ids = tokenizer.encode(text)
    last = len(ids) - prompt - answer
    if last < 0:
        return []
    step = max(1, last // max(1, count))
    starts = range(0, last + 1, step)
    return [
        Question(
            tokenizer.decode(ids[at : at + prompt]),
            (tokenizer.decode(ids[at + prompt : at + prompt + answer]),),
        )
        for at in starts
    ][:count]


def held_out() -> str:
    """Concatenates the standard library's files that the demo pair was not trained on.

    Their names decide, so they are held out in every Python.
    """
    return "\n".join(_held_out_files(Path(sysconfig.get_path("stdlib"))))


def _held_out_files(library: Path) -> Iterator[str]:
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library).as_posix()
        bucket = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % 1000
        if bucket >= _HELD_OUT or re.search(r"(site|dist)-packages/|^test/|/tests?/|^encodings/", name):
            continue
        try:
            with tokenize.open(path) as file:
                yield file.read()
        except (SyntaxError, UnicodeError, OSError):
            continue


def dataset_text(name: str) -> str:
    """Reads the texts of a dataset, with blank lines between them.

    Args:
        name: `name`, `name:configuration` or `name:configuration:split` (default: test).

    Raises:
        BenchError: the `datasets` package is missing, or it cannot fetch this one.
    """
    try:
        import datasets
    except ImportError as error:
        raise BenchError("--dataset needs the package datasets; install it, or give --text FILE.") from error
    path, _, rest = name.partition(":")
    configuration, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(path, configuration or None, split=split or "test")
        return "\n\n".join(row["text"] for row in rows)
    except Exception as error:  # whatever a network, a cache or a foreign layout comes to
        raise BenchError(
            f"The dataset {name} cannot be read ({logs.first_line(error)}); give --text FILE."
        ) from error
