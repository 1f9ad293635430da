"""Judges a demo pair that writes stories: prints texts to read, and the figures that decide if it is shipped.

    python -m tools.judge_stories --pair PAIR --stories STORIES > report.md

The report has ten stories by top-p, greedy beside contrastive search, min-p beside top-p at temperature 1.5,
bits per byte of both models on the stories that were held out, and the speed beside today's pair. Whether the
ten read as stories is for people to say; the other conditions are measured.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.bench.edge_runner import EdgeRunner
from edge_tui.engine.port import ModelSpec, Request
from tools.demo.evaluation import bits_per_byte, load
from tools.stories.corpus import corpus
from tools.stories.filters import strange_words
from tools.train_demo import DEMO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.decoders.core.texts import Value

PROMPT = "Once upon a time"
_WORD = re.compile(r"[A-Za-z']+")
_HOT = 1.5


class Judge:
    """Decodes with one pair and keeps the figures of its texts."""

    def __init__(self, pair: Path, device: str, tokens: int, *, to_the_end: bool = False) -> None:
        self._tokens = tokens
        expert, amateur = (ModelSpec(str(pair / name), device=device) for name in ("expert", "amateur"))
        self._runner = EdgeRunner(
            {"model": expert, "expert": expert, "amateur": amateur}, ignore_eos=to_the_end
        )

    def text(self, strategy: str, values: Mapping[str, Value], seed: int = 0) -> str:
        """Continues the prompt; returns it with what follows."""
        request = Request(PROMPT, strategy, values, seed=seed, max_length=self._tokens, chat=False)
        self._runner.generate(request)
        return PROMPT + self._runner.text

    def speed(self, strategy: str) -> float:
        """Measures new tokens a second of one run, the prompt's reading included."""
        request = Request(PROMPT, strategy, {}, seed=0, max_length=self._tokens, chat=False, watched=False)
        begun = time.perf_counter()
        self._runner.generate(request)
        return self._runner.state.steps / (time.perf_counter() - begun)

    def close(self) -> None:
        """Frees the models."""
        self._runner.close()


def repeated(text: str, length: int = 4) -> float:
    """Computes the share of word n-grams that the text said before."""
    words = _WORD.findall(text.lower())
    grams = list(zip(*(words[n:] for n in range(length)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def known_share(texts: Sequence[str]) -> float:
    """Computes the share of words that are simple words or first names, over texts."""
    words = sum(len(set(_WORD.findall(text))) for text in texts)
    return 1 - sum(len(strange_words(text)) for text in texts) / max(words, 1)


def judge(pair: Path, stories: Path, baseline: Path, device: str, held: int, tokens: int) -> None:
    """Prints the report."""
    bench = Judge(pair, device, tokens)
    verdicts: dict[str, bool] = {}
    print("# Ten stories by top-p 0.9\n")
    for seed in range(10):
        print(f"**{seed}.** {bench.text('top_p', {'top_p': 0.9}, seed)}\n")
    greedy, contrastive = bench.text("greedy", {}), bench.text("contrastive", {})
    print(f"# Greedy: {repeated(greedy):.0%} of its 4-grams were said before\n\n{greedy}\n")
    print(f"# Contrastive: {repeated(contrastive):.0%}\n\n{contrastive}\n")
    verdicts["contrastive repeats less than greedy"] = repeated(contrastive) < repeated(greedy)
    hot: dict[str, list[str]] = {}
    for strategy, values in _hot().items():
        hot[strategy] = [bench.text(strategy, {"temperature": _HOT, **values}, seed) for seed in range(4)]
        share = known_share(hot[strategy])
        print(f"# {strategy} at temperature {_HOT}: {share:.1%} of its words are words of the stories\n")
        print("\n\n".join(hot[strategy][:2]) + "\n")
    verdicts["min-p at 1.5 has more words than top-p"] = known_share(hot["min_p"]) > known_share(hot["top_p"])
    texts = list(corpus(stories, "heldout"))[:held]
    print(f"# Figures\n\nHeld out: {len(texts)} stories, {sum(len(t.encode()) for t in texts):,} bytes\n")
    expert, amateur = (bits_per_byte(*load(pair / name), texts) for name in ("expert", "amateur"))
    print(f"- bits per byte: expert {expert:.3f}, amateur {amateur:.3f} ({amateur / expert - 1:.0%} worse)")
    verdicts["the amateur is at least 15 % worse"] = amateur >= 1.15 * expert
    size = sum(path.stat().st_size for path in pair.rglob("*") if path.is_file())
    print(f"- both folders: {size / 1e6:.1f} MB")
    verdicts["both fit into 12 MB"] = size <= 12_000_000
    bench.close()
    bench, other = (Judge(one, device, tokens, to_the_end=True) for one in (pair, baseline))
    for strategy in ("greedy", "contrastive"):
        ours, theirs = (_best_speed(one, strategy) for one in (bench, other))
        print(f"- {strategy}: {ours:,.0f} tokens a second; today's pair {theirs:,.0f}")
        verdicts[f"{strategy} is as fast as today's"] = ours >= 0.95 * theirs
    other.close()
    bench.close()
    print()
    for condition, holds in verdicts.items():
        print(f"- [{'x' if holds else ' '}] {condition}")


def _hot() -> Mapping[str, dict[str, Value]]:
    return {"top_p": {"top_p": 0.9}, "min_p": {"min_p": 0.1}}


def _best_speed(bench: Judge, strategy: str) -> float:
    """Measures the fastest of four runs; the first ones compile."""
    return max(bench.speed(strategy) for _ in range(4))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report."""
    description, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", type=Path, default=DEMO, help="folder with expert and amateur")
    parser.add_argument("--stories", type=Path, required=True, help="folder of the filtered stories")
    parser.add_argument("--baseline", type=Path, default=DEMO, help="the pair that is shipped today")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--held", type=int, default=500, help="stories of the held-out ones to score")
    parser.add_argument("--tokens", type=int, default=300, help="most tokens of a text")
    args = parser.parse_args(arguments)
    judge(args.pair, args.stories, args.baseline, args.device, args.held, args.tokens)


if __name__ == "__main__":
    main()
