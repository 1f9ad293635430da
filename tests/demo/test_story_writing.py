"""Stories written in one batch: as transformers would score them, whoever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from tests.engine.random_checkpoints import make_checkpoint
from tools.stories.batch_model import BatchModel
from tools.stories.batch_writer import SENTENCE, BatchWriter, Prompt, Written
from tools.stories.prompts import story_prompt
from tools.stories.shards import Story, read_shard, shard_files
from tools.write_stories import Job, encoder, write, write_on_all

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("model") / "llama"
    make_checkpoint(folder, "llama", tie=True, head_dim=16)
    return open_checkpoint(str(folder))


def model(checkpoint: Checkpoint, rows: int, length: int = 40) -> BatchModel:
    return BatchModel(checkpoint, rows, length, CPU, torch.float32)


LAST = [*range(20, 60)]
"""Ids that end a sentence."""
GIVEN = [14, 15]
SCRIPT = [*GIVEN, SENTENCE, 16, SENTENCE, SENTENCE, *GIVEN]


def prompts(count: int) -> Iterator[Prompt]:
    for number in range(count):
        ids = [5 + number, 7, 11][: 1 + number % 3]
        yield Prompt(number, ids, SCRIPT, 0.8 + 0.1 * (number % 2), 0.02)


def write_all(writer: BatchWriter, asked: Iterator[Prompt] | None = None) -> dict[int, Written]:
    return {written.prompt.number: written for written in writer.write(asked or prompts(7), 60)}


def texts(checkpoint: Checkpoint, rows: int, seed: int = 1) -> dict[int, Written]:
    return write_all(BatchWriter(model(checkpoint, rows), LAST, seed))


def sentences(ids: list[int]) -> list[list[int]]:
    """Split what was written where a sentence ends."""
    ends = [at + 1 for at, id in enumerate(ids) if id in LAST]
    return [ids[begin:end] for begin, end in pairwise([0, *ends])]


@torch.no_grad()
def test_logits_of_rows_at_different_positions_are_those_of_transformers(checkpoint: Checkpoint) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    ours = model(checkpoint, 2)
    ids = torch.randint(5, 300, (2, 12))
    lead = 4
    for step in range(12):
        # The second row waits at its first position until the first is ahead.
        at = torch.tensor([step, max(0, step - lead)])
        logits = ours.step(ids[[0, 1], at], at)
    for row, last in enumerate((11, 11 - lead)):
        expected = reference(ids[row : row + 1, : last + 1]).logits[0, -1]
        torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=1e-4)


def test_a_text_depends_on_its_number_alone(checkpoint: Checkpoint) -> None:
    alone = texts(checkpoint, 1)
    assert set(alone) == set(range(7))
    assert texts(checkpoint, 3) == alone
    other = texts(checkpoint, 3, seed=2)
    assert all(other[n].ids != alone[n].ids for n in range(7))


def test_a_text_follows_its_script(checkpoint: Checkpoint) -> None:
    found = [written for written in texts(checkpoint, 2).values() if written.ended]
    assert found
    for written in found:
        assert written.ids[:2] == GIVEN
        assert written.ids[-2:] == GIVEN
        first, second, _ = sentences(written.ids[2:-2])
        assert second[0] == 16
        assert len(second) > 1
        assert first != [16]


def test_a_text_without_room_is_cut_off(checkpoint: Checkpoint) -> None:
    length = 12
    every = write_all(BatchWriter(model(checkpoint, 2, length), LAST, 1)).values()
    found = [written for written in every if not written.ended]
    assert found
    for written in found:
        assert written.ids[:2] == GIVEN
        assert len(written.prompt.ids) + len(written.ids) == length


def test_a_draw_stays_within_min_p(checkpoint: Checkpoint) -> None:
    writer = BatchWriter(model(checkpoint, 2), LAST, 0)
    narrow = [Prompt(number, [9, 8], SCRIPT, 1.0, 1.0) for number in range(3)]
    first, *others = (written.ids for written in writer.write(iter(narrow), 60))
    assert all(other == first for other in others)  # the likeliest token each time, whatever the seed


def read(folder: Path) -> list[Story]:
    stories = (story for shard in shard_files(folder) for story in read_shard(shard))
    return sorted(stories, key=lambda story: story.number)


def test_writing_goes_on_where_it_stopped(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.write_stories.BEFORE", "Say")
    job = Job(Path(checkpoint.path), tmp_path / "stories", seed=1, batch=2, length=380)
    assert write(job._replace(stories=2)) == 2
    assert write(job._replace(stories=2)) == 0
    assert write(job._replace(stories=4)) == 2
    stories = read(job.out)
    assert [story.number for story in stories] == list(range(4))
    at_once = job._replace(out=tmp_path / "at once", stories=4)
    assert write(at_once) == 4
    assert read(at_once.out) == stories
    for story in stories:
        assert story.text.startswith(story_prompt(1, story.number).parts[0])
    assert write(at_once._replace(stories=1), writer=1) == 1
    assert {story.number for story in read(at_once.out)} == {0, 1, 2, 3, 10**8}


@pytest.mark.parametrize(("gpus", "writers"), [(0, 3), (2, 6)])
def test_each_gpu_has_as_many_writers_as_asked(
    gpus: int, writers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Process:
        exitcode = 0

        def __init__(self, target: object, args: tuple[Job, int]) -> None:
            self.writer = args[1]

        def start(self) -> None:
            started.append(self.writer)

        def join(self) -> None:
            pass

    monkeypatch.setattr("multiprocessing.context.SpawnContext.Process", Process)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    (tmp_path / "m.gguf").touch()
    assert write_on_all(Job(tmp_path, tmp_path), 3)
    assert started == list(range(writers))


def test_words_are_encoded_as_in_their_text(checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.read_tokenizer()
    encode = encoder(tokenizer)
    for number in range(20):
        asked = story_prompt(1, number)
        for text in (asked.chat, *asked.parts, "two  blanks "):
            assert encode(text) == tokenizer.encode(text, add_special_tokens=False).ids


def test_what_all_prompts_begin_with_is_read_once(checkpoint: Checkpoint) -> None:
    before = [21, 22, 23]
    whole = (prompt._replace(ids=[*before, *prompt.ids]) for prompt in prompts(7))
    expected = write_all(BatchWriter(model(checkpoint, 3), LAST, 1), whole)
    found = write_all(BatchWriter(model(checkpoint, 3), LAST, 1, before))
    assert {n: text.ids for n, text in found.items()} == {n: text.ids for n, text in expected.items()}


def test_only_scored_tokens_are_written(checkpoint: Checkpoint) -> None:
    scored = [30, 31, 62, 80, 81]
    ours = BatchModel(checkpoint, 3, 40, CPU, torch.float32, scored)
    found = write_all(BatchWriter(ours, LAST, 1))
    assert {id for text in found.values() for id in text.ids} <= {*scored, *SCRIPT}


def test_a_draw_does_not_go_on_as_before(checkpoint: Checkpoint) -> None:
    """Greedy loops on a random model; two tokens that came before are seldom followed by the same again."""
    writer = BatchWriter(model(checkpoint, 1, 120), [], 0)
    (written,) = writer.write(iter([Prompt(0, [9, 8], [7, SENTENCE], 1.0, 1.0)]), 60)
    grams = [tuple(written.ids[n : n + 4]) for n in range(1, len(written.ids) - 3)]
    assert len(set(grams)) / len(grams) > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_writes_by_a_graph_what_a_cpu_writes(checkpoint: Checkpoint) -> None:
    expected = texts(checkpoint, 3)
    ours = BatchModel(checkpoint, 3, 40, torch.device("cuda"), torch.float32)
    found = write_all(BatchWriter(ours, LAST, 1))
    assert set(found) == set(expected)
    # Rounding may turn a near draw, and all that follows it.
    assert sum(found[number].ids[:8] == expected[number].ids[:8] for number in found) >= 6


def test_no_time_writes_nothing(checkpoint: Checkpoint) -> None:
    assert list(BatchWriter(model(checkpoint, 2), LAST, 0).write(prompts(2), 0)) == []
