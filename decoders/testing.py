"""Checks a strategy as the app checks it, in one call: `check(MyStrategy)` in the tests of its author.

It declares what it must, its steps keep the contract, a row does not depend on the rows beside it, a run
that goes on is the run that was never interrupted, an `Edge` says what `apply` does, neutral values change
nothing, and a step asks for no number, so that it is captured on a GPU and traced on a CPU. Needs torch, no
model and no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_tui.decoders.core import checks, step_checks
from edge_tui.decoders.core.attributes import Attributes
from edge_tui.decoders.core.decoder import Decoder
from edge_tui.decoders.core.edge_reference import fits
from edge_tui.decoders.core.errors import StrategyError, fault, file_of, problem_of
from edge_tui.decoders.core.output import Output, last_logits
from edge_tui.decoders.core.params import ParamError, Params
from edge_tui.decoders.core.random import Rng, key_of
from edge_tui.decoders.core.stage import Env, Filter, Needs, Token
from edge_tui.decoders.core.steady import unsteadiness
from edge_tui.decoders.core.texts import numbers, texts
from edge_tui.decoders.registry.declarations import check_class, check_decoder, stages_of
from edge_tui.decoders.registry.sampling import Sampling

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from edge_tui.decoders.core.stage import State
    from edge_tui.decoders.core.texts import Text

_ROWS, _PROMPT, _STEPS, _WIDTH = 3, 4, 6, 8
"""Rows, tokens of the prompt and of the answer, and width of hidden states."""
_ALIKE = 1e-4
"""Most by which the same number added to all logits may differ among them."""


def check(strategy: type[Filter] | type[Decoder] | Decoder, cases: int = 10, **values: float | Text) -> None:
    """Checks a strategy on random logits.

    Args:
        strategy: A class of a strategy file, or a strategy that `edge_tui.decoders.find` returned.
        cases: How many vocabularies and logits are tried.
        **values: Parameters; the others have their defaults.

    Raises:
        StrategyError: one sentence, with the file and the line: what it did and what it must do.
        ParamError: a parameter is declared wrongly, or a value is out of range.
    """
    decoder = _decoder(strategy)
    with _at_its_line(decoder):
        for case in range(cases):
            run = _Run(decoder, case, values)
            if decoder.num_draft_tokens(run.values):
                run.propose()
                continue
            run.check_steps()
            if decoder.kind == "sample":
                run.check_rows_apart()
                run.check_going_on()
        _check_edges(decoder)
        _check_values(decoder)


@contextmanager
def _at_its_line(decoder: Decoder) -> Iterator[None]:
    """Turns any other exception into an error with the line of the strategy's files that it comes from."""
    try:
        yield
    except (StrategyError, ParamError):
        raise
    except Exception as error:
        problem = problem_of(error, _files(decoder).__contains__)
        if problem is None:
            raise
        raise StrategyError(problem.sentence, place=(problem.source, problem.line)) from error


def _files(decoder: Decoder) -> set[str]:
    """Lists the files of a strategy and its stages."""
    return {file_of(type(each)) for each in (decoder, *stages_of(decoder))}


def _own_method(decoder: Decoder) -> Callable[..., object]:
    """Finds the author's part of a step: a filter's `apply`, or the first of these that a decoder defines."""
    if isinstance(decoder, Sampling):
        return decoder.filter.apply
    names = ("step", "final", "choose", "logits")
    own = (name for name in names if getattr(type(decoder), name) is not getattr(Decoder, name))
    method: Callable[..., object] = getattr(decoder, next(own, "step"))
    return method


def _decoder(strategy: type[Filter] | type[Decoder] | Decoder) -> Decoder:
    """Makes a strategy of its class, its declarations checked."""
    if isinstance(strategy, Decoder):
        return strategy
    check_class(strategy)
    decoder = Sampling(strategy()) if issubclass(strategy, Filter) else strategy()
    check_decoder(decoder, strategy)
    return decoder


@dataclass
class _Run:
    """Decodes a few steps of random logits by hand."""

    decoder: Decoder
    case: int
    given: Mapping[str, float | Text]

    def __post_init__(self) -> None:
        import torch

        known = {param.name: param for param in self.decoder.params}
        if unknown := [name for name in self.given if name not in known]:
            raise StrategyError(f"{self.decoder.name} has no parameter {unknown[0]!r}.", type(self.decoder))
        parse = {name: param.parse(self.given.get(name, param.default)) for name, param in known.items()}
        self.values = {p.name: p.parse(parse[p.name]) for p in numbers(self.decoder.params)}
        self.texts = {p.name: p.parse(parse[p.name]) for p in texts(self.decoder.params)}
        generator = torch.Generator().manual_seed(self.case)
        self.vocab = int(torch.randint(20, 300, (1,), generator=generator))
        self.rows = self.decoder.rows(self.values) if self.decoder.kind == "search" else _ROWS
        self.steps = [self._outputs(generator, 1) for _ in range(_STEPS)]
        self.ids = torch.randint(0, self.vocab, (self.rows, _PROMPT), generator=generator)

    def _outputs(self, generator: Generator, positions: int) -> dict[str, Output]:
        """Makes the streams' logits `[R, K, V]`, and of the main one what the strategy needs beside."""
        import torch

        def random(*shape: int) -> Tensor:
            return torch.randn(self.rows, *shape, generator=generator) * 3

        outs = {each.name: Output(random(positions, self.vocab)) for each in self.decoder.streams}
        needs = self.decoder.needs_of(self.values, 12, False)
        more: dict[str, Tensor] = {}
        if needs.hidden:
            more["hidden"] = random(positions, len(needs.hidden), _WIDTH)
        if needs.early:
            more["early"] = random(positions, len(needs.early), self.vocab)
        if needs.past:
            more["past"] = random(_PROMPT + _STEPS, _WIDTH)
            more["past_length"] = torch.full((self.rows,), _PROMPT + 1)
        main = self.decoder.streams[0].name
        return {**outs, main: replace(outs[main], **more)}

    def start(self, ids: Tensor) -> State:
        """Makes constants and state for a prompt, int64 `[R, T]`."""
        import torch

        env = Env(len(ids), self.vocab, "cpu", ids, torch.tensor([1]), self.values, 64, texts=self.texts)
        fixed = checks.constants(self.decoder.constants, env)
        return fixed | checks.init(self.decoder.init, env)

    def params(self, rows: int) -> Params:
        """Makes the parameter table."""
        import torch

        return Params(list(self.values), torch.tensor(list(self.values.values()))[:, None].repeat(1, rows))

    def rng(self, step: int, rows: slice = slice(None)) -> Rng:
        """Makes the random numbers of a step: of samples each row's own."""
        import torch

        own = range(self.rows) if self.decoder.kind == "sample" else [0] * self.rows
        return Rng(torch.tensor([key_of(self.case + row) for row in own])[rows], torch.tensor([step]))

    def decode(self, state: State, ids: Tensor, first: int, rows: slice = slice(None)) -> list[Tensor]:
        """Decodes the steps from `first` on; returns the tokens int64 `[R]` of each."""
        chosen = []
        for step in range(first, _STEPS):
            outs = {name: _rows(out, rows) for name, out in self.steps[step].items()}
            with checks.Inspection(self.decoder.step, state).watch({}):  # which names the stage at fault
                took = self.decoder.step(outs, state, self.params(len(ids)), self.rng(step, rows))
            raw = outs[self.decoder.streams[0].name].logits[:, -1]
            step_checks.check_numbers(self.decoder, took, len(ids), raw)
            chosen.append(took.chosen)
        return chosen

    def check_steps(self) -> None:
        """Checks the first step as the engine checks a run's first step, and asks whether it is steady."""
        state, outs, p, rng = self.start(self.ids), self.steps[0], self.params(self.rows), self.rng(0)
        at, main, own = self.decoder.step, self.decoder.streams[0].name, _own_method(self.decoder)
        attributes = Attributes(self.decoder)
        inspection = checks.Inspection(at, state)
        lent = {f"the logits of {name}": out.logits for name, out in outs.items()} | {"p": p.table}
        before = dict(state)
        with inspection.watch(lent):
            step = self.decoder.step(outs, state, p, rng)
        checks.check_state(at, before, state)
        attributes.check("step")
        raw = outs[main].logits[:, -1]
        step_checks.check_step(self.decoder, step, self.rows, self.vocab, 0, "cpu")
        step_checks.check_numbers(self.decoder, step, self.rows, raw)
        if error := unsteadiness(
            self.decoder, outs, state, p, rng
        ):  # last: it takes any error for a question
            problem = problem_of(error, _files(self.decoder).__contains__)
            place = (problem.source, problem.line) if problem is not None else None
            why = str(error).partition("\n")[0] or type(error).__name__
            does = f"asks for numbers ({why}); it must do the same operations whatever they are."
            raise fault(own, does, place)
        again = self.decoder.step(outs, self.start(self.ids), p, rng)
        if not (step.chosen.equal(again.chosen) and step.final.equal(again.final)):
            raise fault(own, "gives two results for one input; it must take its luck from rng.")
        if self.decoder.kind == "sample" and inspection.writes:
            name = min(inspection.writes).rpartition(".")[2]
            raise fault(own, f"changes s[{name!r}]; what changes from token to token changes in observe.")

    def check_rows_apart(self) -> None:
        """Checks that a row alone decodes what it decodes beside others."""
        together = self.decode(self.start(self.ids), self.ids, 0)
        last = slice(self.rows - 1, self.rows)
        alone = self.decode(self.start(self.ids[last]), self.ids[last], 0, last)
        if any(int(a[0]) != int(b[-1]) for a, b in zip(alone, together, strict=True)):
            raise fault(
                _own_method(self.decoder), "decodes a row otherwise beside other rows; rows must not mix."
            )

    def check_going_on(self) -> None:
        """Checks that a run which goes on from kept tokens is the run that was never interrupted."""
        import torch

        state, p, main = self.start(self.ids), self.params(self.rows), self.decoder.streams[0].name
        kept: list[Token] = []
        for at in range(_STEPS // 2):
            outs, rng = self.steps[at], self.rng(at)
            step = self.decoder.step(outs, state, p, rng)
            raw = last_logits(outs[main], state).log_softmax(-1).gather(-1, step.chosen[:, None])[:, 0]
            final = step.final.log_softmax(-1).gather(-1, step.chosen[:, None])[:, 0]
            kept.append(Token(step.chosen, raw, final, torch.tensor([at])))
        whole = self.decode(state, self.ids, len(kept))
        anew = self.start(self.ids)
        for token in kept:
            self.decoder.observe(anew, p, token)
        rest = self.decode(anew, self.ids, len(kept))
        if any(not a.equal(b) for a, b in zip(whole, rest, strict=True)):
            does = "forgets what it learned when a run goes on; observe must have it all."
            raise fault(_own_method(self.decoder), does)

    def propose(self) -> None:
        """Checks the proposals and the step of a strategy that proposes tokens."""
        import torch

        generator = torch.Generator().manual_seed(self.case)
        self.rows, self.ids = 1, self.ids[:1]
        count = self.decoder.num_draft_tokens(self.values)
        state, p = self.start(self.ids), self.params(1)
        rng = Rng(torch.tensor([key_of(self.case)]), torch.tensor([0]))
        main, *drafts = (stream.name for stream in self.decoder.streams)
        for at in range(count):
            out = self._outputs(generator, 1)[drafts[0]] if drafts else None
            proposed = self.decoder.propose(out, state, p, rng, at)
            step_checks.check_proposal(self.decoder, proposed, 1, "cpu")
        outs = {main: self._outputs(generator, count + 1)[main]}
        step = self.decoder.step(outs, state, p, rng)
        step_checks.check_step(self.decoder, step, 1, self.vocab, count + 1, "cpu")
        step_checks.check_numbers(self.decoder, step, 1, outs[main].logits)


def _rows(out: Output, rows: slice) -> Output:
    """Selects rows of an output."""
    return replace(out, **{name: tensor[rows] for name, tensor in out.tensors().items()})


def _check_edges(decoder: Decoder) -> None:
    """Compares the set that a filter keeps with the one that its `Edge` declares."""
    import torch

    for stage in stages_of(decoder):
        if not isinstance(stage, Filter) or stage.edge is None:
            continue
        name = stage.edge.param
        param = next(each for each in numbers(stage.params) if each.name == name)
        z = torch.randn(40, 90, generator=torch.Generator().manual_seed(1)) * 3
        value = param.default if param.default != param.neutral else (param.low + param.high) / 3
        value = round(value) if param.integer else value
        p = Params([name], torch.full((1, len(z)), float(value)))
        rng = Rng(torch.full((len(z),), key_of(0)), torch.tensor([0]))
        kept = stage.apply(z, p, {}, rng) > -torch.inf
        if not fits(kept, z, stage.edge, value):
            raise fault(stage.apply, f"keeps other tokens than its edge says at {name} = {value:g}.")


def _check_values(decoder: Decoder) -> None:
    """Checks what filters do to logits that they leave, and at their neutral numbers.

    One that needs the text so far or texts is passed over.
    """
    import torch

    for stage in stages_of(decoder):
        own = numbers(stage.params)
        if not isinstance(stage, Filter) or stage.needs != Needs() or texts(stage.params):
            continue
        z, after = _apply(stage, {each.name: each.default for each in own})
        moved = (after - z)[after > -torch.inf]
        if not stage.reshapes and moved.numel() and moved.max() - moved.min() > _ALIKE:
            raise fault(
                stage.apply,
                "changes the logits of tokens that it leaves: it must say reshapes = True.",
            )
        values = {each.name: each.neutral for each in own if each.neutral is not None}
        if not values or len(values) < len(own):
            continue
        z, after = _apply(stage, values)
        if not after.softmax(-1).allclose(z.softmax(-1), atol=1e-5):
            setting = ", ".join(f"{name} = {value:g}" for name, value in values.items())
            raise fault(
                stage.apply, f"changes logits at its neutral {setting}; it must change nothing there."
            )


def _apply(stage: Filter, values: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Applies a filter to random logits; returns them and what it made of them, float32 `[R, V]`."""
    import torch

    z = torch.randn(_ROWS, 90, generator=torch.Generator().manual_seed(1)) * 3
    ids, ends = torch.zeros(_ROWS, _PROMPT, dtype=torch.long), torch.tensor([1])
    env = Env(_ROWS, z.shape[1], "cpu", ids, ends, values, 64)
    state = {**stage.constants(env), **stage.init(env)}
    p = Params(
        list(values), torch.tensor([float(value) for value in values.values()])[:, None].repeat(1, _ROWS)
    )
    rng = Rng(torch.tensor([key_of(row) for row in range(_ROWS)]), torch.tensor([0]))
    return z, stage.apply(z, p, state, rng)
