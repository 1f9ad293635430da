"""Defines a decoder: a whole strategy, from the models' logits to the next token of each row."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from edge_tui.decoders.core import checks
from edge_tui.decoders.core.chain import Chain, Link, merge
from edge_tui.decoders.core.column import BEAM_ROLES, as_columns, repeated
from edge_tui.decoders.core.declaration import Declaration, Kind
from edge_tui.decoders.core.output import Output, last_logits
from edge_tui.decoders.core.params import ParamError
from edge_tui.decoders.core.random import draw, draw_and_margin
from edge_tui.decoders.core.records import Choice, Records
from edge_tui.decoders.core.rows import log_sum_exp
from edge_tui.decoders.core.stage import Needs, Token
from edge_tui.decoders.core.tokens import add_tokens, init_tokens, reorder_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from edge_tui.decoders.core.column import Column
    from edge_tui.decoders.core.criterion import Criterion
    from edge_tui.decoders.core.params import Params
    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import Env, Stage, State
    from edge_tui.decoders.core.texts import AnyParam, Text


@dataclass(frozen=True, slots=True)
class Step:
    """Holds a strategy's decision for one step.

    Attributes:
        chosen: int64 `[R]`, the next token of each row.
        final: float32 `[R, V]`, logits of the distribution that the choice was made from; −inf means
            removed. Greedy leaves one candidate, so its final probability is 1. After proposals
            `[R, K, V]`, one distribution a position.
        parent: int64 `[R]`, the row that each new row continues; None where every row continues itself.
        accepted: int64 `[R]`, how many of the proposals were taken; None where none are made.
        tokens: int64 `[R, K]`, after proposals the tokens of all positions: those accepted, then `chosen`,
            then any.
        done: bool `[R]`, rows that the strategy itself declares finished; None leaves it to end-of-sequence.
        extras: float32 `[R]` for each name in `Decoder.columns`; after proposals `[R, K]`.
        candidates: The same numbers for every token of the vocabulary, float32 `[R, V]` for each name in
            `Decoder.columns` and with rows as in `final`; recorded of the alternatives. May be empty.
        margin: float32 `[R]`, the best sum of a logit and its luck less the second (nats), +inf where one
            candidate is left; after proposals `[R, K]`. None where it has no meaning, or was not computed.
        removing_stage: int8 `[R, V]`, the number of the link that removed each token, or what stands for it
            in `step_log`; None where that is in the step's log. Fused steps give it.
    """

    chosen: Tensor
    final: Tensor
    parent: Tensor | None = None
    accepted: Tensor | None = None
    tokens: Tensor | None = None
    done: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    candidates: Mapping[str, Tensor] = field(default_factory=dict)
    margin: Tensor | None = None
    removing_stage: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Names a flow of logits that a strategy reads: those of the model in a role.

    Attributes:
        name: Key of its logits in `outs`.
        role: The role whose model computes them.
        prompt: The name of what it reads, a key of `Decoder.prompts`; "" reads the prompt itself.
    """

    name: str
    role: str
    prompt: str = ""


class Prompt(Protocol):
    """Holds a prompt as ids, and makes others of it for streams that read something else."""

    @property
    def ids(self) -> Sequence[int]:
        """Its tokens."""

    def with_system(self, text: str) -> Prompt:
        """Puts a system prompt in place of the present one; where there is no chat template, `text` alone."""

    def with_text(self, text: str) -> Prompt:
        """Puts another text in place of what the user wrote last."""

    def last(self, count: int) -> Prompt:
        """Keeps the last ids alone."""


class Decoder(Declaration, ABC):
    """Decides the next token of each row from the models' logits: a whole strategy.

    Two chains of stages stand around what a class adds: `before` changes the main model's logits, `after`
    changes what `logits` makes of all streams, and `step` draws from the result. Most classes override
    `logits` alone, some `step`. A decoder object holds no state of a run; `init` allocates it. `params` is
    what the sidebar shows, own parameters first.

    Args:
        before: Stages on the main model's logits, first to last.
        after: Stages on the result of `logits`.
        params: Its own parameters; those of the stages follow. Without them those of the class.
    """

    before: Chain = Chain(name="before")
    after: Chain = Chain(name="after")
    links_around: tuple[Link, ...] = ()
    """Stages that `around` added; with them it decodes otherwise than its class says."""
    params: tuple[AnyParam, ...] = ()
    roles: ClassVar[tuple[str, ...]] = ("model",)
    """Model roles it needs, the main one first: ("model",), ("expert", "amateur"), ("model", "draft")."""
    columns: ClassVar[tuple[str | Column, ...]] = ()
    """Numbers of its own recorded for each token, `Step.extras`; a name alone is a plain number."""
    needs: ClassVar[Needs] = Needs()
    """Inputs from the main stream beyond logits; its stages declare their own."""
    lag: ClassVar[int] = 0
    """Steps from proposing a token to deciding on it: a run takes so many more than its answer has tokens."""
    owns_eos: ClassVar[bool] = False
    """True where `step` itself decides what an end-of-sequence token means (beam search does)."""

    def __init__(
        self,
        before: Sequence[Stage | Link] = (),
        after: Sequence[Stage | Link] = (),
        params: Iterable[AnyParam] | None = None,
    ) -> None:
        self.own_params = tuple(self.params if params is None else params)
        self._set_chains(before, after)

    def _set_chains(self, before: Sequence[Stage | Link], after: Sequence[Stage | Link]) -> None:
        self.before = Chain(before, "before", first=0)
        self.after = Chain(after, "after", first=len(self.before.links))
        self.params = merge((*self.own_params, *self.before.params, *self.after.params))
        for link, following in pairwise((*self.before.links, *self.after.links)):
            if link.stage.last:
                way_out = f"put {link.name} at the end, as in {following.name}+{link.name}"
                raise ParamError(
                    f"{link.name} selects the token, so {following.name} cannot follow it: "
                    f"{'leave one of them out' if following.stage.last else way_out}."
                )
        if name := repeated(column.name for column in self.all_columns):
            raise ParamError(f"Two parts record a number named {name}; give one another name.")

    def around(self, links: Sequence[Link]) -> Decoder:
        """Makes the same strategy with more stages around it, each in its order.

        Penalties go behind the penalties that it has on the model's logits, other stages to the end.

        Raises:
            ParamError: it has one of the stages already, one stands behind a stage that selects, or two
                declare one parameter differently.
        """
        present = {link.name for link in (*self.before.links, *self.after.links)}
        if again := [link.name for link in links if link.name in present]:
            raise ParamError(f"{self.title} has the stage {again[0]} already: leave it out of the chain.")
        decoder = copy(self)
        decoder.links_around = (*self.links_around, *links)
        if "own_params" not in vars(decoder):
            decoder.own_params = self.params
        penalties = tuple(takewhile(lambda link: link.stage.penalty, self.before.links))
        before = (link for link in links if link.stage.penalty)
        after = (link for link in links if not link.stage.penalty)
        rest = self.before.links[len(penalties) :]
        decoder._set_chains((*penalties, *before, *rest), (*self.after.links, *after))
        decoder.name = f"{self.name}:{'+'.join(link.name for link in links)}"  # type: ignore[misc]
        decoder.title = f"{self.title}:{'+'.join(link.name for link in links)}"  # type: ignore[misc]
        return decoder

    @property
    def kind(self) -> Kind:
        """The way it decodes, by the methods of its class."""
        if self.owns_eos:
            return "search"
        return "sample" if type(self).propose is Decoder.propose else "propose"

    @property
    def own_columns(self) -> tuple[Column, ...]:
        """The columns of its steps."""
        return as_columns(self.columns, BEAM_ROLES if self.owns_eos else None)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The columns of a record: its own, then those of its stages."""
        return (*self.own_columns, *self.before.columns, *self.after.columns)

    def stage_columns(self, s: State) -> list[Tensor]:
        """Reads the numbers of its stages' columns after a step, float32 `[R]` each."""
        return self.before.column_values(s) + self.after.column_values(s)

    @property
    def learns(self) -> bool:
        """True where the decoder or one of its stages learns from the tokens taken."""
        return self.before.learns or self.after.learns or type(self).observe is not Decoder.observe

    @property
    def reads_checkpoint(self) -> bool:
        """True where a checkpoint's own settings give it its parameters."""
        return type(self).from_checkpoint is not Decoder.from_checkpoint

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The flows of logits it reads; by default one per role."""
        return tuple(Stream(role, role) for role in self.roles)

    def prompts(self, main: Prompt, texts: Mapping[str, Text]) -> Mapping[str, Prompt]:
        """Makes the prompts of streams that read another one than the user's, by their names."""
        return {}

    def rows(self, values: Mapping[str, float]) -> int:
        """Gives the number of rows it decodes side by side for one answer (a beam's width)."""
        return 1

    def draws(self, values: Mapping[str, float]) -> bool:
        """Tells whether luck has a part in its tokens under these parameters and a temperature above 0."""
        return self.kind != "search" and not self.takes_argmax

    def needs_of(self, values: Mapping[str, float], layers: int, tied: bool) -> Needs:
        """Gives what a run reads of the main model beyond logits; by default `needs`.

        Args:
            values: The run's parameters.
            layers: Layers of the main model.
            tied: True where its head is its embedding.
        """
        return self.needs

    def num_draft_tokens(self, values: Mapping[str, float]) -> int:
        """Gives the number of tokens proposed before the main model reads them all at once; 0 for most.

        The second stream, if there is one, is the draft's: its logits go to `propose` alone, and `step` gets
        the main model's at `K = num_draft_tokens + 1` positions (1 at the start of a run, when nothing is
        proposed yet).
        """
        return 0

    lookahead = num_draft_tokens
    """The old name of `num_draft_tokens`, which strategy files may define or call."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = ("num_draft_tokens", "lookahead")
        for name, other in (names, names[::-1]):
            if name in vars(cls) and other not in vars(cls):
                setattr(cls, other, vars(cls)[name])

    def propose(self, out: Output | None, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Proposes the token at position `at` from the draft's logits after the one before it.

        A draft may be no model: where a strategy has one stream, `out` is None.

        Returns:
            int64 `[R]`.
        """
        raise NotImplementedError(f"{self.name} proposes nothing")

    def cut_by(self, values: Mapping[str, float]) -> str:
        """Names what made a candidate's number −inf in the last column, for readers: "alpha"."""
        return ""

    def from_checkpoint(self, generation_config: Mapping[str, Any]) -> Mapping[str, float]:
        """Reads parameter values from a checkpoint's own generation_config.json; most read none."""
        return {}

    def with_settings(self, generation_config: Mapping[str, Any]) -> Decoder:
        """Gives the strategy that decodes by that file: this one, or one with more stages.

        It must be the same object for the same settings, because captured graphs belong to one.
        """
        return self

    def ignored_settings(self, generation_config: Mapping[str, Any]) -> tuple[str, ...]:
        """Names, one sentence each, the settings of that file that are not followed."""
        return ()

    def constants(self, env: Env) -> State:
        """Makes the tensors of any shape that no step changes: those of the chains."""
        return self.before.constants(env) | self.after.constants(env)

    def init(self, env: Env) -> State:
        """Allocates the run's state; row-first tensors, updated in place by `step`."""
        history = max(self.before.history, self.after.history, self.needs.history)
        return self.before.init_stages(env) | self.after.init_stages(env) | init_tokens(env, history)

    def logits(self, outs: Mapping[str, Output], s: State, p: Params) -> Tensor:
        """Makes one distribution of all streams, float32 `[R, V]`; the main one has passed `before`."""
        return last_logits(outs[self.streams[0].name], s)

    def final(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        """Computes the logits that the token is drawn from, float32 `[R, V]`; −inf means removed."""
        main = self.streams[0].name
        z = self.before.apply(last_logits(outs[main], s), p, s, rng)
        seen = {**outs, main: replace(outs[main], logits=z[:, None])}
        return self.after.apply(self.logits(seen, s, p), p, s, rng)

    def choose(self, final: Tensor, p: Params, rng: Rng) -> Tensor:
        """Takes a token of each row, int64 `[R]`: by a draw, unless a class takes it otherwise."""
        return draw(final, rng)

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion | None:
        """Gives the numbers by which its own part decides on tokens, for readers; None where it has none.

        Arguments are those of `step`, which nothing is to change.
        """
        return None

    def luck(self, ids: Tensor, rng: Rng) -> Tensor:
        """Gives the noise that a draw adds to the logits of tokens, for readers who ask why one was taken.

        Args:
            ids: int64 `[R, N]`.
            rng: The step's random numbers.

        Returns:
            float32 `[R, N]`.
        """
        return rng.gumbel(ids)

    def observe(self, s: State, p: Params, token: Token) -> None:
        """Counts the token taken, and tells it to the stages that learn.

        A run that goes on from kept tokens calls it for each of them (`Stage.observe`). A decoder whose own
        state changes from step to step changes it here, so that such a run is the same run.
        """
        add_tokens(s, token.id)
        self.before.learn(s, p, token)
        self.after.learn(s, p, token)

    def take(self, chosen: Tensor, final: Tensor, raw: Tensor, s: State, p: Params, rng: Rng) -> None:
        """Calls `observe` with the tokens taken.

        Args:
            chosen: int64 `[R]`.
            final: float32 `[R, V]`, the logits that they were taken from.
            raw: float32 `[R, V]`, the main model's.
            s: The state, updated in place.
            p: The parameters.
            rng: The step's random numbers.
        """
        if not self.learns:
            add_tokens(s, chosen)
            return
        of_model, of_choice = ((z.gather(-1, chosen[:, None]) - log_sum_exp(z))[:, 0] for z in (raw, final))
        with checks.learning():
            self.observe(s, p, Token(chosen, of_model, of_choice, rng.step))

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Decides the next token of each row from the last position of each stream's logits."""
        final = self.final(outs, s, p, rng)
        margin = None
        if type(self).choose is Decoder.choose:
            chosen, margin = draw_and_margin(final, rng)
        else:
            chosen = self.choose(final, p, rng)
        self.take(chosen, final, last_logits(outs[self.streams[0].name], s), s, p, rng)
        return Step(chosen, final, margin=margin)

    def reorder(self, s: State, parent: Tensor) -> None:
        """Copies row `parent[r]` to row `r` in the tokens and the stages' states; `parent` int64 `[R]`."""
        reorder_tokens(s, parent)
        self.before.reorder_stages(s, parent)
        self.after.reorder_stages(s, parent)

    def finish(self, records: Records) -> Choice | None:
        """Chooses the answer among rows once the run has ended, on the host; None where there is one row."""
        return None

    def ranked(self, records: Records) -> list[Choice]:
        """Lists every finished sequence of a strategy that chooses, best first: the first is the answer."""
        choice = self.finish(records)
        return [] if choice is None else [choice]


class ChainDecoder(Decoder):
    """Stands for `Decoder` in strategy files that were written when it had one chain, `chain`.

    Args:
        stages: First to last, on the main model's logits.
        params: The decoder's own parameters; those of the stages follow.
    """

    def __init__(self, stages: Sequence[Stage], params: Iterable[AnyParam] = ()) -> None:
        super().__init__(stages, params=params)

    @property
    def chain(self) -> Chain:
        """The chain before."""
        return self.before
