"""Stories written in one batch: as transformers would score them, whoever else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from tests.engine.random_checkpoints import EOS_ID, make_checkpoint
from tools.stories.batch_model import BatchModel
from tools.stories.batch_writer import BatchWriter, Prompt, Written
from tools.stories.prompts import story_prompt
from tools.stories.shards import read_stories
from tools.write_stories import write

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("model") / "llama"
    make_checkpoint(folder, "llama", tie=True, head_dim=16)
    return open_checkpoint(str(folder))


def model(checkpoint: Checkpoint, rows: int, length: int = 40) -> BatchModel:
    return BatchModel(checkpoint, rows, length, CPU, torch.float32)


def prompts(count: int) -> Iterator[Prompt]:
    for number in range(count):
        yield Prompt(number, [5 + number, 7, 11][: 1 + number % 3], 0.8 + 0.1 * (number % 2), 0.95)


def texts(checkpoint: Checkpoint, rows: int, ends: tuple[int, ...], seed: int = 1) -> dict[int, Written]:
    writer = BatchWriter(model(checkpoint, rows), ends, seed)
    return {written.prompt.number: written for written in writer.write(prompts(7), 60)}


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
    alone = texts(checkpoint, 1, (EOS_ID,))
    assert set(alone) == set(range(7))
    assert texts(checkpoint, 3, (EOS_ID,)) == alone
    other = texts(checkpoint, 3, (EOS_ID,), seed=2)
    assert all(other[n].ids != alone[n].ids for n in range(7))


def test_a_text_ends_where_its_end_is_drawn(checkpoint: Checkpoint) -> None:
    free = texts(checkpoint, 2, (EOS_ID,))
    number, longest = max(((n, written.ids) for n, written in free.items()), key=lambda pair: len(pair[1]))
    end = longest[10]
    cut = texts(checkpoint, 2, (end,))[number]
    assert cut.ended
    assert cut.ids == longest[: longest.index(end)]
    assert any(not written.ended for written in free.values())
    for written in free.values():
        if not written.ended:
            assert len(written.prompt.ids) + len(written.ids) == 40


def test_a_draw_stays_within_top_p(checkpoint: Checkpoint) -> None:
    writer = BatchWriter(model(checkpoint, 2), (EOS_ID,), 0)
    narrow = [Prompt(number, [9, 8], 1.0, 1e-6) for number in range(3)]
    first, *others = (written.ids for written in writer.write(iter(narrow), 60))
    assert all(other == first for other in others)  # the likeliest token each time, whatever the seed


def test_writing_goes_on_where_it_stopped(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def add(most: int, folder: str = "stories") -> int:
        return write(checkpoint.path, tmp_path / folder, seed=1, seconds=60, batch=2, length=480, most=most)

    assert add(2) == 2
    assert add(2) == 0
    assert add(5) == 3
    stories = sorted(read_stories(tmp_path / "stories"), key=lambda story: story.number)
    assert [story.number for story in stories] == list(range(5))
    assert add(5, "at once") == 5
    assert sorted(read_stories(tmp_path / "at once"), key=lambda story: story.number) == stories
    for story in stories:
        assert story.text.startswith(story_prompt(1, story.number).opening)


def test_a_draw_does_not_go_on_as_before(checkpoint: Checkpoint) -> None:
    """Greedy loops on a random model; three tokens that came before are not followed by the same again."""
    writer = BatchWriter(model(checkpoint, 1, 120), (EOS_ID,), 0)
    (written,) = writer.write(iter([Prompt(0, [9, 8], 1.0, 1e-6)]), 60)
    grams = [tuple(written.ids[n : n + 4]) for n in range(1, len(written.ids) - 3)]
    assert len(set(grams)) / len(grams) > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_writes_by_a_graph_what_a_cpu_writes(checkpoint: Checkpoint) -> None:
    expected = texts(checkpoint, 3, (EOS_ID,))
    ours = BatchModel(checkpoint, 3, 40, torch.device("cuda"), torch.float32)
    found = {text.prompt.number: text for text in BatchWriter(ours, (EOS_ID,), 1).write(prompts(7), 60)}
    assert set(found) == set(expected)
    # Rounding may turn a near draw, and all that follows it.
    assert sum(found[number].ids[:8] == expected[number].ids[:8] for number in found) >= 6


def test_no_time_writes_nothing(checkpoint: Checkpoint) -> None:
    assert list(BatchWriter(model(checkpoint, 2), (EOS_ID,), 0).write(prompts(2), 0)) == []
