"""Strategies of a user's own that break the contract: each is an error with stage, file and line."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.engine.events import Finished, Started, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.watch import Watched, watch

PROMPT = "the quick brown fox"
FILTER = """from edge_tui.decoders.base import Filter, Param


class Mine(Filter):
    name = "mine"
    title = "mine"
    summary = "A filter with a mistake."
    params = (Param("a", 0.5, 0.0, 1.0, "Does little.", neutral=0.0),)

{body}
"""
APPLY = """
def apply(self, z, p, s, rng):
    return {value}
"""


@pytest.fixture
def run(tmp_path: Path, engine: LocalEngine) -> Iterator[Callable[..., Watched]]:
    """Decodes with a file of strategies."""

    def one(
        text: str, length: int = 12, during: Callable[..., None] = lambda *_: None, **request: Any
    ) -> Watched:
        (tmp_path / "mine.py").write_text(text)
        linecache.clearcache()
        decoders.load([tmp_path])
        assert not decoders.current().problems
        asked = Request(PROMPT, "mine", seed=3, max_length=length, **request)
        return watch(engine, asked, during=partial(during, engine))

    yield one
    decoders.load()


def filter_of(body: str) -> str:
    return FILTER.format(body=indent(dedent(body).strip(), "    "))


def test_what_a_step_raises_names_its_file_line_and_type(run: Callable[..., Watched]) -> None:
    failed = run(filter_of(APPLY.format(value="z.foo()"))).failed
    assert failed.message == (
        "mine.py, line 11: Mine.apply raised AttributeError: 'Tensor' object has no attribute 'foo'."
    )
    assert failed.problem is not None
    assert (Path(failed.problem.source).name, failed.problem.line) == ("mine.py", 11)
    assert (
        "mine.py, line 11: Mine.apply raised SystemExit"
        in run(filter_of("def apply(self, z, p, s, rng):\n    raise SystemExit(3)")).failed.message
    )


DECODER = """import torch

from edge_tui.decoders.base import Decoder, Param, Step
from edge_tui.decoders.base import Chain, last_logits
from edge_tui.decoders.penalties import penalties


class Mine(Decoder):
    name = "mine"
    title = "mine"
    summary = "A strategy with a mistake."
    params = (Param("a", 0.5, 0.0, 1.0, "Does little."),)
{extra}

    def init(self, env):
        state = Chain(penalties()).init(env)
        {init}
        return state

    def step(self, outs, s, p, rng):
        z = last_logits(outs["model"], s)
        chosen, final = z.argmax(-1), z
        {step}
        return Step({result})
"""


COUNTER = 'state["n"] = torch.zeros(env.rows, 1, dtype=torch.int64)'


def decoder_of(step: str = "pass", result: str = "chosen, final", init: str = "pass", extra: str = "") -> str:
    return DECODER.format(extra=indent(dedent(extra), "    "), init=init, step=step, result=result)


LEARNER = """
def init(self, env):
    import torch
    return {{"n": torch.zeros(env.rows, 1, device=env.device)}}

def apply(self, z, p, s, rng):
    {apply}
    return z

def observe(self, s, p, token):
    {observe}
"""


def learner(apply: str = "pass", observe: str = "pass") -> str:
    return filter_of(LEARNER.format(apply=apply, observe=observe))


LATER = 's["n"] += 1; z = z.masked_fill(s["n"] == 5, float("{}"))'
# fmt: off
STAGES = {
    "none": (filter_of(APPLY.format(value="None")), 10, "Mine.apply returned None; it must be float32 [1, "),
    "shape": (filter_of(APPLY.format(value="z[:, :-1]")), 10, "Mine.apply returned float32 [1, "),
    "rows": (filter_of(APPLY.format(value="z.expand(2, -1)")), 10, "Mine.apply returned float32 [2, "),
    "dtype": (filter_of(APPLY.format(value="z.double()")), 10, "Mine.apply returned float64 [1, "),
    "device": (filter_of(APPLY.format(value="z.to('meta')")), 10, "on meta; it must be float32 [1, "),
    "nan": (filter_of(APPLY.format(value="z * float('nan')")), 10, "Mine.apply gave NaN or +inf"),
    "one nan": (learner('z = z.clone(); z[:, 7] = float("nan")'), 14, "Mine.apply gave NaN or +inf"),
    "inf": (learner('z = z.clone(); z[:, 7] = float("inf")'), 14, "Mine.apply gave NaN or +inf"),
    "later nan": (learner(LATER.format("nan")), 14, "At token 4, Mine.apply gave NaN or +inf"),
    "later inf": (learner(LATER.format("inf")), 14, "At token 4, Mine.apply gave NaN or +inf"),
    "rebound": (learner('s["n"] = s["n"] + 1'), 14, "puts another tensor under s['n'], which is lost"),
    "rebound in observe": (
        learner(observe='s["n"] = s["n"] + 1'), 18, "Mine.observe puts another tensor under s['n']"
    ),
    "new name": (learner('s["m"] = s["n"]'), 14, "Mine.apply adds or removes s['m']"),
    "written": (learner("z[:, 3] = 0.0"), 15, "Mine.apply writes to z, which is not its own"),
    "written with nothing": (learner("z.mul_(1.0)"), 15, "Mine.apply writes to z"),
    "written through numpy": (learner("z.numpy()[0, 3] = 9"), 14, "Mine.apply writes to z"),
    "parameters": (learner('p["a"].fill_(0.1)'), 15, "Mine.apply writes to the parameters"),
    "random numbers": (learner("rng.step.add_(1)"), 15, "Mine.apply writes to rng.step"),
    "on itself": (learner('self.n = s["n"]'), 14, "Mine.apply puts a tensor into self.n"),
    "counter": (learner('self.n = getattr(self, "n", 0) + 1'), 14, "Mine.apply changes self.n"),
    "list": (learner("SEEN.append(1)").replace("class", "SEEN = []\n\n\nclass"), 17, "changes SEEN[0]"),
    "in init": (
        learner().replace("import torch", "import torch; self.n = torch.ones(9)"),
        10,
        "Mine.init puts a tensor into self.n",
    ),
    "prompt": (learner().replace("import torch", "import torch; env.prompt[:] = 0"), 10, "writes to env"),
    "init gives none": (learner().replace("return {", "0, {"), 10, "Mine.init returned None"),
    "init has no rows": (learner().replace("(env.rows, 1", "(3, 1"), 10, "init returned n float32 [3, 1]"),
    "init has no tensor": (learner().replace('{"n": ', '{"n": 3, "m": '), 10, "Mine.init returned n a int"),
    "init raises": (learner().replace("import torch", "1 / 0"), 11, "Mine.init raised ZeroDivisionError"),
}
# fmt: on


@pytest.mark.parametrize(("text", "line", "words"), STAGES.values(), ids=STAGES)
def test_a_stage_that_breaks_the_contract(
    run: Callable[..., Watched], text: str, line: int, words: str
) -> None:
    seen = run(text)
    assert words in seen.failed.message
    assert seen.failed.message.startswith(f"mine.py, line {line}: ")


# fmt: off
DECODERS = {
    "none": (decoder_of(result="chosen, final) and (None"), "Mine.step returned None"),
    "dtype": (decoder_of(result="chosen.int(), final"), "returned Step.chosen int32 [1]"),
    "rows": (decoder_of(result="chosen.repeat(2), final"), "returned Step.chosen int64 [2]"),
    "final": (decoder_of(result="chosen, final[0]"), "returned Step.final float32 ["),
    "parent": (decoder_of(result="chosen, final, parent=chosen * 0"), "gave Step.parent, which only"),
    "unread": (decoder_of(result="chosen, final, accepted=chosen"), "gave Step.accepted, which"),
    "column": (decoder_of(extra='columns = ("mu",)'), "gave Step.extras named []"),
    "no column": (decoder_of(result='chosen, final, extras={"mu": final[:, 0]}'), "Step.extras named ['mu']"),
    "id": (decoder_of(result="chosen * 0 - 1, final"), "Mine.step gave the id -1"),
    "large id": (decoder_of(result="chosen * 0 + 999999, final"), "Mine.step gave the id 999999"),
    "later id": (
        decoder_of('s["n"] += 1', 'chosen + 999999 * (s["n"][:, 0] > 4), final', COUNTER),
        "At token 4, Mine.step gave the id",
    ),
    "later rows": (
        decoder_of('s["n"] += 1', 'chosen[: 5 - int(s["n"])], final', COUNTER), "Step.chosen int64 [0]"
    ),
    "nan": (decoder_of("final = z * float('nan')"), "Mine.step gave NaN or +inf"),
    "removed": (decoder_of("final = -1 / (z - z.amax()).ne(0)"), "that its own Step.final removes"),
    "nothing left": (
        decoder_of('s["n"] += 1; final = z.masked_fill(s["n"] > 4, -float("inf"))', init=COUNTER),
        "At token 4, Mine.step ",
    ),
    "written": (decoder_of("z[:, 0] = 9.0"), "Mine.step writes to the logits of model"),
    "rebound": (decoder_of('s["n"] = s["n"] + 1', init=COUNTER), "puts another tensor under s['n']"),
    "checkpoint": (
        decoder_of(extra='def from_checkpoint(self, c): return {"a": 9.0}'), "a value that cannot be: a is 9"
    ),
    "search": (
        decoder_of("p", "chosen, final, parent=chosen * 0 + 4", extra="owns_eos = True"), "gave the parent 4"
    ),
}
# fmt: on


@pytest.mark.parametrize(("text", "words"), DECODERS.values(), ids=DECODERS)
def test_a_decoder_that_breaks_the_contract(run: Callable[..., Watched], text: str, words: str) -> None:
    seen = run(text)
    assert words in seen.failed.message
    lines = text.splitlines()
    assert seen.failed.problem is not None
    at = max(i for i, line in enumerate(lines[: seen.failed.problem.line]) if "def " in line)
    assert ("def from_checkpoint(" if "value" in words else "def step(") in lines[at]


@pytest.mark.parametrize("name", ["rank", "logprob"])
def test_a_column_that_has_the_name_of_a_tokens_own_number(run: Callable[..., Watched], name: str) -> None:
    seen = run(decoder_of(extra=f'columns = ("{name}",)'))
    assert f"Mine records a number named {name}, as every token does" in seen.failed.message
    assert seen.failed.problem is not None
    assert seen.failed.problem.line > 0


def test_what_a_stage_may_do(run: Callable[..., Watched]) -> None:
    """State updated in place, temporary tensors written to, tensors made once, late imports."""
    body = """
    def __init__(self):
        import torch
        self.table = torch.ones(1)

    def init(self, env):
        import torch
        return {"n": torch.zeros(env.rows, 1), "same": self.table.expand(env.rows), "ids": env.prompt}

    def apply(self, z, p, s, rng):
        global math
        import math
        out = z.clone()
        out[:, 0] = -math.inf
        s["n"] += 1
        s["same"].mul_(0.5)
        return out * self.table

    def observe(self, s, p, token):
        s["ids"][:, 0] = token.id
        s["n"].copy_(s["n"] + token.final[:, None])
    """
    seen = run(filter_of(body))
    assert len(seen.ids) == 12
    assert run(filter_of(body)).ids == seen.ids


def test_what_came_before_a_mistake_is_kept(run: Callable[..., Watched]) -> None:
    seen = run(learner(LATER.format("nan")))
    assert len(seen.ids) == 4
    assert not seen.all(Finished)


ENDS = """
def init(self, env):
    import torch
    return {"n": torch.zeros(env.rows, 1), "eos": env.eos[:1].expand(env.rows, 1)}

def apply(self, z, p, s, rng):
    import torch
    s["n"] += 1
    here = torch.arange(len(z))[:, None] == row_that_ends
    ends = torch.full_like(z, -float("inf")).scatter(-1, s["eos"], 0.0)
    others = z.scatter(-1, s["eos"], -float("inf"))
    z = ends.where(here & (s["n"] == 2), others)
    return z.masked_fill(here & (s["n"] == 4), float("nan"))
"""


@pytest.mark.parametrize("first", [0, 1])
def test_what_becomes_of_a_sample_that_has_ended_ends_no_other(
    run: Callable[..., Watched], first: int
) -> None:
    seen = run(filter_of(ENDS.replace("row_that_ends", str(first))), samples=2)
    assert seen.finished.reasons[first] == "eos"
    assert seen.finished.reasons[1 - first] == "length"
    assert [len(seen.column("id", row)) for row in (first, 1 - first)] == [2, 12]


def test_a_stage_that_wakes_up_while_a_run_goes_on_is_inspected_too(run: Callable[..., Watched]) -> None:
    """Neutral stages are left out on a CPU: the first step in which one acts comes later."""
    text = filter_of("def apply(self, z, p, s, rng):\n    z[:, 0] = 1.0\n    return z").replace("0.5", "0.0")
    turned: list[int] = []

    def turn(engine: LocalEngine, run: int, events: list[object]) -> None:
        if not turned and any(isinstance(event, TokenBatch) for event in events):
            turned.append(run)
            engine.set(run, "a", 0.5)

    seen = run(text, 300, during=turn)
    assert turned
    assert "line 11: Mine.apply writes to z" in seen.failed.message
    assert len(seen.ids) > 0


MIROSTAT = """
def init(self, env):
    import torch
    return {"mu": torch.full((env.rows, 1), 6.0, device=env.device)}

def apply(self, z, p, s, rng):
    surprise = -z.log_softmax(-1)
    return z.masked_fill((surprise > s["mu"]) & (surprise > surprise.amin(-1, keepdim=True)), -float("inf"))

def observe(self, s, p, token):
    s["mu"].sub_(0.3 * (-token.final[:, None] - 3.0))
"""
COUNTS_STEPS = """
def init(self, env):
    import torch
    return {"n": torch.zeros(env.rows, 1, device=env.device)}

def apply(self, z, p, s, rng):
    s["n"] += 1
    return z / s["n"]
"""
CONSTANT = """
def init(self, env):
    import torch
    return {"even": (torch.arange(env.vocab, device=env.device) % 2 == 0).repeat(env.rows, 1)}

def apply(self, z, p, s, rng):
    return z.masked_fill(s["even"], -float("inf"))
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (filter_of(COUNTS_STEPS), "mine changes s['n'] outside observe, which"),
        (decoder_of('s["n"] += 1', init=COUNTER), "mine changes s['n'] outside observe, which"),
    ],
    ids=("apply", "decoder"),
)
def test_a_strategy_that_changes_its_state_outside_observe_is_not_gone_on_from(
    run: Callable[..., Watched], text: str, words: str
) -> None:
    whole = run(text)
    assert len(whole.ids) == 12
    assert run(text).ids == whole.ids
    refused = run(text, prefix=tuple(whole.ids[:5]))
    assert refused.failed.message.startswith(words)
    assert "run the prompt from its start" in refused.failed.message
    assert refused.failed.field == "prefix"
    assert refused.failed.problem is None
    assert not refused.ids
    assert not refused.all(Started), "screens would take the old answer away"


def test_a_strategy_whose_state_is_constant_is_gone_on_from(run: Callable[..., Watched]) -> None:
    whole = run(filter_of(CONSTANT))
    assert run(filter_of(CONSTANT), 7, prefix=tuple(whole.ids[:5])).ids == whole.ids[5:]


@pytest.mark.parametrize(
    "name", [d.name for d in decoders.strategies() if len(d.roles) == 1 and not d.owns_eos]
)
def test_our_own_go_on_with_what_the_penalties_counted(engine: LocalEngine, name: str) -> None:
    values = {"repetition_penalty": 1.4, "presence_penalty": 0.5, "frequency_penalty": 0.4}

    def go(length: int, prefix: tuple[int, ...] = ()) -> Watched:
        asked = Request(PROMPT, name, dict(values), seed=5, max_length=length, prefix=prefix)
        return watch(engine, asked)

    whole = go(16)
    assert go(10, tuple(whole.ids[:6])).ids == whole.ids[6:]


FINISHES = {
    "return None": "Mine.finish chose none of 3 rows",
    "return (1, 2)": "Mine.finish returned",
    "return Choice((1, 999999), 0.0)": "Mine.finish chose tokens that there are not",
    "return Choice((1,), float('nan'))": "Mine.finish gave the score nan",
    "raise KeyError('x')": "Mine.finish raised KeyError",
}


@pytest.mark.parametrize("finish", FINISHES)
def test_a_search_that_chooses_badly(run: Callable[..., Watched], finish: str) -> None:
    extra = f"""
    owns_eos = True

    def rows(self, values):
        return 3

    def finish(self, records):
        from edge_tui.decoders.base import Choice

        {finish}
    """
    seen = run(decoder_of("chosen = z.topk(3).indices.diagonal()", extra=extra), 6)
    assert FINISHES[finish] in seen.failed.message
    assert seen.failed.message.startswith("mine.py, line ")
    assert len(seen.ids) == 6


PROPOSER = """from edge_tui.decoders.base import Decoder, Step
from edge_tui.decoders.speculative import Speculative


class Mine(Speculative):
    name = "mine"
    title = "mine"
    summary = "Proposes with a mistake."

    def propose(self, out, s, p, rng, at):
        {propose}

    def step(self, outs, s, p, rng):
        took = super().step(outs, s, p, rng)
        {step}
"""
RIGHT = "return super().propose(out, s, p, rng, at)"
# fmt: off
PROPOSERS = {
    "shape": ("return out.logits[:, :, 0]", "return took", "it must be int64 [1] on cpu."),
    "id": (RIGHT + " - 999999", "return took", "gave an id that there is not"),
    "done": (RIGHT, "return replace(took, done=took.chosen > 0)", "Mine.step gave Step.done, which"),
    "tokens": (RIGHT, "return replace(took, tokens=took.tokens * 0 - 5)", "Mine.step gave the id -5"),
    "columns": (RIGHT, "return replace(took, extras={})", "gave Step.extras named []"),
}
# fmt: on


@pytest.mark.parametrize(("propose", "step", "words"), PROPOSERS.values(), ids=PROPOSERS)
def test_a_strategy_that_proposes(
    run: Callable[..., Watched], engine: LocalEngine, checkpoint: Path, propose: str, step: str, words: str
) -> None:
    engine.assign("draft", ModelSpec(str(checkpoint), device="cpu"))
    text = PROPOSER.format(propose=propose, step=step)
    seen = run("from dataclasses import replace\n\n" + text)
    assert words in seen.failed.message
    assert seen.failed.message.startswith("mine.py, line ")
    assert len(run(PROPOSER.format(propose=RIGHT, step="return took")).ids) == 12


LOOKER = """from edge_tui.decoders.ngram import NGram


class Mine(NGram):
    name = "mine"
    title = "mine"
    summary = "Proposes the last token again, without a draft model."

    def propose(self, out, s, p, rng, at):
        assert out is None
        s["proposed"][:, at] = s["ids"][:, -1] {mistake}
        return s["proposed"][:, at]
"""


def test_a_strategy_that_proposes_without_a_draft_model(
    run: Callable[..., Watched], engine: LocalEngine
) -> None:
    seen = run(LOOKER.format(mistake=""), values={"temperature": 0.7})
    plain = Request(PROMPT, "top_k", {"temperature": 0.7, "top_k": 0}, seed=3, max_length=12)
    assert seen.ids == watch(engine, plain).ids
    assert "gave an id that there is not" in run(LOOKER.format(mistake="+ 999999")).failed.message
