from __future__ import annotations

import random
from dataclasses import replace
from math import isnan, log, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.decoders.base import Column
from edge_tui.engine.events import TOP, Finished, ParamChanged, Resolved, Started, TokenBatch
from edge_tui.transcript.transcript import Transcript

BEAM = ("score", "finished", "finished_parent", "finished_id", "over")
NONE = (nan, -1.0, -1.0)


def started(rows: int = 1, columns: tuple[str, ...] = (), prefix: int = 0) -> Started:
    values: dict[str, Resolved] = {"length_penalty": Resolved(1.0, "default")}
    return Started(1, "test", rows, columns, 5, prefix, 0, 256, 1, values)


def batch(
    tokens: list[tuple[int, int, int, int, str]], extras: list[tuple[float, ...]] | None = None, seed: int = 0
) -> TokenBatch:
    """Tokens as (step, row, parent, id, text); the other columns follow from the id."""
    n = len(tokens)
    ids = np.array([token[3] for token in tokens], np.int32)
    top_ids = (ids[:, None] + np.arange(TOP)).astype(np.int32)
    top_ids[:, 5:] = -1
    top_logp = np.broadcast_to(-np.arange(1.0, TOP + 1), (n, TOP)).astype(np.float32)
    return TokenBatch(
        run=1,
        step=np.array([token[0] for token in tokens], np.int32),
        row=np.array([token[1] for token in tokens], np.int32),
        parent=np.array([token[2] for token in tokens], np.int32),
        id=ids,
        raw_logp=-ids.astype(np.float32) / 10,
        final_logp=-ids.astype(np.float32) / 20,
        rank=ids % 7,
        entropy=ids.astype(np.float32) / 5,
        version=np.full(n, seed, np.int32),
        top_ids=top_ids,
        top_logp=top_logp,
        final_ids=top_ids,
        final_top_logp=top_logp / 2,
        extras=np.array(extras or [()] * n, np.float32).reshape(n, -1),
        text=tuple(token[4] for token in tokens),
        margin=ids.astype(np.float32) / 8,
        candidate_count=ids % 50,
        removing_stage=top_ids % 6,
    )


def line(ids: list[int], start: int = 0) -> TokenBatch:
    return batch([(start + i, 0, 0, token, f" t{token}") for i, token in enumerate(ids)])


def test_samples_with_a_column_called_score_do_not_compete() -> None:
    begun = replace(started(rows=2, columns=("score",)), column_details=(Column("score"),))
    transcript = Transcript(begun)
    transcript.extend(batch([(0, 0, 0, 5, "a"), (0, 1, 1, 6, "b")], [(-9.0,), (-1.0,)]))
    assert transcript.text == "a"


def test_a_single_row_is_its_own_path() -> None:
    transcript = Transcript(started())
    transcript.extend(line([3, 1]))
    transcript.extend(line([4], 2))
    assert len(transcript) == transcript.stable_length == transcript.record_count == 3
    assert transcript.text == " t3 t1 t4"
    assert transcript.ids() == (3, 1, 4)
    assert transcript.ids(2) == (3, 1)
    assert transcript.revision == 0
    assert transcript.column("rank", 1).tolist() == [1, 4]


def test_a_view_has_everything() -> None:
    transcript = Transcript(started(columns=("expert", "amateur")))
    transcript.extend(batch([(0, 0, 0, 10, "x\x1b")], [(-1.0, -2.5)], seed=3))
    token = transcript.token(0)
    assert (token.id, token.text, token.rank, token.version) == (10, "x\x1b", 3, 3)
    assert token.raw_logp == pytest.approx(-1)
    assert token.final_logp == pytest.approx(-0.5)
    assert token.entropy == pytest.approx(2)
    assert token.extras == {"expert": -1.0, "amateur": -2.5}
    assert [(a.id, a.logp) for a in token.top] == [(10 + i, -1.0 - i) for i in range(5)]
    assert token.final[1].logp == -1.0
    with pytest.raises(IndexError, match="has 1"):
        transcript.token(1)


def test_alternatives_have_the_strategys_own_numbers() -> None:
    told = np.random.default_rng(1).normal(size=(3, 2, 2, TOP)).astype(np.float32)
    before = Transcript(started(columns=("expert", "score")))
    tokens = [(i, 0, 0, 10 * i, "x") for i in range(3)]
    before.extend(replace(batch(tokens, [(0.0, 1.0)] * 3), candidates=told))
    before.extend(batch([(3, 0, 0, 40, "y")], [(0.0, 1.0)]))
    top, final = before.token(1).top, before.token(1).final
    assert [each.id for each in top] == [10, 11, 12, 13, 14]
    assert top[3].extras == pytest.approx({"expert": told[1, 0, 0, 3], "score": told[1, 1, 0, 3]})
    assert final[2].extras == pytest.approx({"expert": told[1, 0, 1, 2], "score": told[1, 1, 1, 2]})
    assert all(isnan(each.extras["score"]) for each in before.token(3).top), "nothing was told"
    # An alternative that is taken brings its own along.
    after = Transcript(started(columns=("expert", "score"), prefix=2), before, (0, 13))
    assert after.token(1).extras == pytest.approx(top[3].extras)
    assert after.token(1).top == before.token(1).top
    assert after.token(0).top[1].extras == before.token(0).top[1].extras
    other = Transcript(started(columns=("margin",), prefix=2), before, (0, 13))
    assert not other.token(0).top[0].extras
    assert isnan(other.token(1).extras["margin"])


def test_changes_know_their_first_token() -> None:
    transcript = Transcript(started())
    transcript.extend(line([1, 2, 3]))
    transcript.change(ParamChanged(1, "temperature", 0.5, 2, 2))
    assert [c.name for c in transcript.changes_at(2)] == ["temperature"]
    assert transcript.changes_at(1) == []


def test_an_unfinished_character_joins_the_last_token() -> None:
    transcript = Transcript(started())
    transcript.extend(line([1, 2]))
    before = transcript.revision
    transcript.finish(Finished(1, "length", 2, 0.1, 1.0, tail="\ufffd"))
    assert transcript.text == " t1 t2\ufffd"
    assert transcript.unchanged_since(before) == 1


def test_continuing_takes_over_what_agrees() -> None:
    old = Transcript(started(columns=("score",)))
    old.extend(batch([(i, 0, 0, 10 + i, f" t{i}") for i in range(5)], [(float(i),) for i in range(5)]))
    old.change(ParamChanged(1, "temperature", 0.5, 2, 1))
    old.change(ParamChanged(1, "temperature", 0.9, 3, 4))
    new = Transcript(
        started(columns=("score",), prefix=3), old, (10, 11, 14), lambda ids: [f"<{i}>" for i in ids]
    )
    new.extend(batch([(3, 0, 0, 7, " on")], [(9.0,)]))
    assert new.ids() == (10, 11, 14, 7)
    assert new.text == " t0 t1<14> on"
    assert new.token(1) == old.token(1)
    taken = new.token(2)
    # 14 was the third of the alternatives recorded where 12 was taken.
    assert (taken.rank, taken.raw_logp, taken.final_logp) == (2, -3.0, -1.5)
    assert taken.top == old.token(2).top
    assert taken.entropy == old.token(2).entropy
    assert isnan(taken.extras["score"])
    assert [change.index for change in new.changes] == [1]


def test_continuing_without_the_old_run_knows_ids_alone() -> None:
    new = Transcript(started(prefix=2), None, (5, 6), lambda ids: [f"<{i}>" for i in ids])
    new.extend(line([1], 2))
    assert new.text == "<5><6> t1"
    assert isnan(new.token(0).raw_logp)
    assert new.token(0).rank == -1
    assert new.token(0).top == ()


def beams(
    transcript: Transcript,
    step: int,
    rows: list[tuple[int, int, float]],
    ended: tuple[float, int, int] | None = None,
) -> None:
    """One step: (parent, id, score) of each row, and what ended: (score, parent, id)."""
    end = ended or NONE
    extras = [(score, *(end if row == 0 else NONE), 0.0) for row, (_, _, score) in enumerate(rows)]
    transcript.extend(
        batch([(step, r, parent, token, f" {token}") for r, (parent, token, _) in enumerate(rows)], extras)
    )


def test_beams_settle_what_all_share() -> None:
    transcript = Transcript(started(2, BEAM))
    beams(transcript, 0, [(0, 1, -1.0), (0, 2, -2.0)])
    assert (transcript.text, transcript.stable_length) == (" 1", 0)
    beams(transcript, 1, [(0, 3, -1.5), (0, 4, -1.7)])
    assert (transcript.text, transcript.stable_length) == (" 1 3", 1)
    revision = transcript.revision
    beams(transcript, 2, [(1, 5, -2.0), (0, 6, -3.0)])
    assert (transcript.text, transcript.stable_length) == (" 1 4 5", 1)
    assert transcript.unchanged_since(revision) == 1
    assert transcript.unchanged_since(transcript.revision) == 3
    best, other = transcript.hypotheses()
    assert (best.row, best.parent, best.text, best.tokens, best.start) == (0, 1, " 4 5", (4, 5), 1)
    assert best.score == pytest.approx(-2 / 3)
    assert (other.row, other.parent, other.text) == (1, 0, " 3 6")


def test_rows_that_are_not_alive_yet_do_not_count() -> None:
    transcript = Transcript(started(2, BEAM))
    beams(transcript, 0, [(0, 1, -1.0), (1, 1, -1e9)])
    assert transcript.stable_length == 1
    assert len(transcript.hypotheses()) == 1


def test_a_finished_hypothesis_keeps_its_branch_unsettled_while_it_can_win() -> None:
    transcript = Transcript(started(2, BEAM))
    beams(transcript, 0, [(0, 1, -1.0), (0, 2, -1.1)])
    beams(transcript, 1, [(0, 3, -1.5), (0, 4, -1.7)], ended=(-0.7, 1, 99))
    # Both live rows share " 1", but " 2" has finished and may be the answer.
    assert transcript.stable_length == 0
    ended = transcript.hypotheses()[-1]
    assert (ended.finished, ended.text, ended.tokens, ended.score) == (
        True,
        " 2",
        (2, 99),
        pytest.approx(-0.7),
    )
    beams(transcript, 2, [(0, 5, -1.6), (1, 6, -1.9)], ended=(-0.5, 0, 99))
    assert transcript.stable_length == 1
    worse = transcript.hypotheses()[-1]
    assert (worse.start, worse.text) == (0, " 2")
    transcript.finish(Finished(1, "done", 3, 0.1, 1.0, (1, 3, 99), " 1 3", -0.5))
    assert transcript.text == " 1 3"
    assert transcript.stable_length == 2
    assert transcript.common_length == 1


def test_the_last_token_of_the_greatest_length_is_shown() -> None:
    transcript = Transcript(started(2, BEAM))
    beams(transcript, 0, [(0, 1, -1.0), (0, 2, -1.1)])
    beams(transcript, 1, [(1, 3, -1.2), (0, 4, -1.7)], ended=(-0.6, 1, 3))
    assert transcript.hypotheses()[-1].text == " 2 3"
    transcript.finish(Finished(1, "length", 2, 0.1, 1.0, (2, 3), " 2 3", -0.6))
    assert transcript.text == " 2 3"


def test_beams_continue_a_kept_prefix() -> None:
    transcript = Transcript(started(2, BEAM, prefix=2), None, (7, 8), lambda ids: [f"<{i}>" for i in ids])
    beams(transcript, 2, [(0, 1, -1.0), (0, 2, -2.0)])
    assert transcript.text == "<7><8> 1"
    assert transcript.stable_length == 2
    transcript.finish(Finished(1, "done", 1, 0.1, 1.0, (2,), " 2", -2.0))
    assert transcript.ids() == (7, 8, 2)


def test_rows_without_scores_show_the_first() -> None:
    transcript = Transcript(started(3))
    transcript.extend(batch([(0, r, r, r, f" {r}") for r in range(3)]))
    assert transcript.text == " 0"
    assert transcript.stable_length == 1


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 25), st.data())
def test_path_and_settled_are_what_a_plain_search_finds(
    seed: int, rows: int, steps: int, data: st.DataObject
) -> None:
    """However batches are cut and whenever somebody looks."""
    rng = random.Random(seed)
    transcript = Transcript(started(rows, ("score",)))
    front: list[tuple[int, ...]] = [()] * rows
    nodes: list[tuple[tuple[int, int], ...]] = [()] * rows
    seen: tuple[int, ...] = ()
    revision = 0
    pending: list[tuple[int, int, int, int, str]] = []
    scores: list[tuple[float]] = []
    for step in range(steps):
        parents = [rng.randrange(rows) if rng.random() < 0.4 else row for row in range(rows)]
        ids = [rng.randrange(1000) for _ in range(rows)]
        front = [(*front[parent], token) for parent, token in zip(parents, ids, strict=True)]
        nodes = [(*nodes[parent], (step, row)) for row, parent in enumerate(parents)]
        pending += [(step, r, parents[r], ids[r], f" {ids[r]}") for r in range(rows)]
        scores += [(log(rng.random() + 1e-9),) for _ in range(rows)]
        if step < steps - 1 and data.draw(st.booleans()):
            continue
        transcript.extend(batch(pending, scores))
        newest = [score for (score,) in scores[-rows:]]
        pending, scores = [], []
        best = front[max(range(rows), key=lambda r: np.float32(newest[r]))]
        assert transcript.ids() == best
        valid = transcript.unchanged_since(revision)
        assert best[:valid][: len(seen)] == seen[:valid]
        seen, revision = best, transcript.revision
        assert transcript.stable_length == sum(len(set(level)) == 1 for level in zip(*nodes, strict=True))
        hypotheses = transcript.hypotheses()
        assert sorted(best[: h.start] + h.tokens for h in hypotheses) == sorted(front)
