"""Trains, exports and evaluates a demo pair: two small language models that share one tokenizer.

``edge_tui/demo/expert`` and ``edge_tui/demo/amateur`` are ordinary Llama checkpoints, so that the workbench
has a pair to decode with before anything is downloaded. `--text` names what they learn: ``python``, the
standard library's own source, or ``stories``, which `tools/write_stories.py` writes::

    python -m tools.train_demo prepare      # text -> tokenizer and token arrays, about a minute
    python -m tools.train_demo train        # all at once; GPUs: 9 minutes; a CPU: --minutes 600
    python -m tools.train_demo evaluate     # bits per byte on the held-out texts (CPU is enough)
    python -m tools.train_demo sample       # greedy and sampled continuations of a prompt

``train`` checkpoints weights, optimizer state and the clock into the work folder, so running it again
continues where it stopped; delete ``<work>/*.pt`` to start over. It exports when the time is used up;
`--stop-after` ends one call before that. The model cards are written by hand: after a retraining, run
``evaluate`` and copy its figures. Training needs PyTorch 2.9 or later (its Muon); the other commands run on
any that the package supports.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.demo.evaluation import bits_per_byte, distinct, exported, load, sample
from tools.demo.texts import TEXTS, WORK
from tools.demo.tokens import prepare
from tools.demo.training import Plan, train_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.demo.texts import TrainingText

DEMO = Path(__file__).resolve().parent.parent / "edge_tui" / "demo"


def evaluate(text: TrainingText, folder: Path, out: Path, limit: int | None, only_distinct: bool) -> None:
    """Prints the bits per byte of each model on the held-out texts, and how much worse than the best."""
    texts = list(text.read(folder, "heldout"))[:limit]
    if only_distinct:
        texts = distinct(text.read(folder, "train"), load(out / "expert")[1], texts)
    print(f"held out: {len(texts)} texts, {sum(len(t.encode()) for t in texts):,} bytes")
    least = math.inf
    for name in exported(out):
        model, tokenizer = load(out / name)
        print(f"{name:14}{model.num_parameters():>10,} parameters", end="", flush=True)
        bits = bits_per_byte(model, tokenizer, texts)
        least = min(least, bits)
        print(f"  {bits:.3f} bits per byte, {bits / least - 1:.0%} worse")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command."""
    begun = time.monotonic()
    description, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("prepare", "train", "evaluate", "sample"))
    parser.add_argument("--text", choices=sorted(TEXTS), default="python", help="what the pair learns")
    parser.add_argument("--corpus", type=Path, help="folder of the text: a Python's Lib, or written stories")
    parser.add_argument("--work", type=Path, help="work folder; .demo-corpus/TEXT-pair")
    parser.add_argument("--out", type=Path, default=DEMO, help="where the two checkpoints are")
    parser.add_argument("--minutes", type=float, default=8.3, help="train: time of all calls")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="train: seconds of this call")
    parser.add_argument("--batch", type=int, default=32, help="train: windows in a step")
    parser.add_argument("--rate", type=float, default=6e-3, help="train: peak learning rate")
    parser.add_argument("--limit", type=int, help="evaluate: only the first so many texts")
    parser.add_argument(
        "--distinct", action="store_true", help="evaluate: leave out near copies of training text"
    )
    parser.add_argument("--prompt", help="sample: what to continue")
    parser.add_argument("--tokens", type=int, default=200, help="sample: how many tokens")
    args = parser.parse_args(arguments)
    text = TEXTS[args.text]
    folder, work = args.corpus or text.folder, args.work or WORK / f"{args.text}-pair"
    if args.command == "prepare":
        prepare(text, folder, work)
    elif args.command == "train":
        plan = Plan(args.minutes, args.batch, args.rate, text.dropout, begun + args.stop_after)
        if not train_all(text.shapes, work, args.out, plan):
            raise SystemExit(1)
    elif args.command == "evaluate":
        evaluate(text, folder, args.out, args.limit, args.distinct)
    else:
        sample(args.out, args.prompt or text.prompt, args.tokens)


if __name__ == "__main__":
    main()
