"""The contract between a decoding strategy and whatever runs it.

A strategy is a pure consumer of logits: tensors in, tokens out. It never sees a KV cache, a captured
graph, a widget or a socket, so it can be read next to its paper and tested with hand-written numbers.

Two kinds of class make a strategy:

* a `Filter` removes or reshapes candidates (top-k, nucleus, min-p …). One file with one filter *is* a
  strategy: `edge_tui.decoders.core.sampling.Sampling` wraps it and adds penalties, temperature and the draw.
* a `Decoder` owns the whole step (greedy, beam, contrastive).

Shapes are written `R` rows (sequences decoded side by side), `K` positions, `V` vocabulary,
`P` parameters. **A step never waits for the device**: no `.item()`, no `if tensor`, no dynamic shapes
outside the CPU, because the same code runs inside captured graphs.

Importing this module loads no torch: sidebars, `--help` and schemas read parameters without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.random import Rng

    State = dict[str, Tensor]
    """What a stage or decoder remembers between steps.

    Row-first tensors (`[R, …]`), updated in place, so that rows can be permuted for beams and the
    addresses stay valid inside a captured graph.
    """


class ParamError(ValueError):
    """A parameter value that cannot be used; the message names the parameter and its range."""


@dataclass(frozen=True, slots=True)
class Param:
    """One number that a user can turn, declared once for sidebar, command line, HTTP and docs.

    Every value is a float on the device. Integers are whole floats, a choice is the index into
    `choices`, a switch is 0 or 1 (`choices=("off", "on")`).
    """

    name: str
    """Identifier; unique within a strategy's chain, and the name in config.toml and on the command line."""
    default: float
    low: float
    high: float
    help: str
    """One line: what turning it up does."""
    step: float = 0.05
    """One press of an arrow key."""
    integer: bool = False
    choices: tuple[str, ...] = ()
    low_open: bool = False
    """Whether `low` itself is excluded."""
    live: bool = True
    """Whether a running generation can take a new value; otherwise it applies to the next run."""
    neutral: float | None = None
    """The value at which it does nothing, if there is one."""
    label: str = ""
    """Short name for narrow sidebars; defaults to `name` with spaces."""
    greedy: float | None = None
    """The value that leaves the likeliest token alone, if there is one: the temperature is then 0."""

    @property
    def title(self) -> str:
        return self.label or self.name.replace("_", " ")

    def range(self) -> str:
        """The allowed values in words, as error messages and help show them."""
        if self.choices:
            return " | ".join(self.choices)
        kind = "a whole number" if self.integer else "a number"
        bound = "above" if self.low_open else "from"
        return f"{kind} {bound} {self.format(self.low)} to {self.format(self.high)}"

    def parse(self, value: object) -> float:
        """Turns what a user typed or a config holds into the device's float.

        Raises:
            ParamError: naming the parameter, the value and the range.
        """
        if self.choices:
            if isinstance(value, bool) and self.choices == ("off", "on"):
                return float(value)
            if isinstance(value, str) and value.strip() in self.choices:
                return float(self.choices.index(value.strip()))
            if isinstance(value, int | float) and value in range(len(self.choices)):
                return float(value)
            raise ParamError(f"{self.name} is {value!r}, but must be {self.range()}.")
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = float("nan")
        whole = not self.integer or number == int(number) if isfinite(number) else False
        low_ok = number > self.low if self.low_open else number >= self.low
        if not (whole and low_ok and number <= self.high) or isinstance(value, bool):
            shown = value if isinstance(value, int | float) else repr(value)
            raise ParamError(f"{self.name} is {shown}, but must be {self.range()}.")
        return number

    def format(self, value: float) -> str:
        """The value as the user reads it."""
        if self.choices:
            return self.choices[int(value)]
        if self.integer or value == int(value):
            return str(int(value))
        return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Env:
    """What a run tells its strategy before the first step.

    Attributes:
        rows: Number of rows `R`.
        vocab: Size `V` of the logits the strategy will see.
        device: Where its tensors live.
        prompt: int64 `[R, T]`, the prompt's ids, right-padded with −1.
        eos: int64 `[E]`, ids that end a sequence; may be empty.
        values: The run's parameters as plain floats, for what must be known when buffers are allocated
            (a beam's width). Live parameters are read from the device table in `step`.
        max_new_tokens: Upper bound of steps.
        prefix: How many of the prompt's last ids were generated by an earlier run: they count as output.
    """

    rows: int
    vocab: int
    device: str
    prompt: Tensor
    eos: Tensor
    values: Mapping[str, float]
    max_new_tokens: int
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a stage wants beyond the logits."""

    counts: bool = False
    """Token counts of prompt and output: state `prompt_counts`, `output_counts`, int32 `[R, V]`."""
    hidden: bool = False
    """Hidden states of every layer (DoLa, contrastive search)."""


class Params(Mapping[str, "Tensor"]):
    """The run's parameter table on the device: `p["top_p"]` is float32 `[R, 1]`, ready to broadcast.

    The views alias the table (float32 `[P, R]`), so a refresh of the table is seen without rebuilding them.
    """

    def __init__(self, names: Sequence[str], table: Tensor) -> None:
        self.table = table
        self._views = {name: table[i].unsqueeze(-1) for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> Tensor:
        return self._views[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def is_neutral(self, param: Param) -> bool:
        """Whether a parameter has, in all rows, the value at which it does nothing.

        Looks at the table, which on an accelerator is a wait: for steps on a CPU.
        """
        return param.neutral is not None and bool((self[param.name] == param.neutral).all())


class Stage(ABC):
    """One link of the chain between a model's logits and the choice of a token."""

    params: ClassVar[tuple[Param, ...]] = ()
    needs: ClassVar[Needs] = Needs()

    def init(self, env: Env) -> State:
        """Allocates what the stage remembers; row-first tensors."""
        return {}

    @abstractmethod
    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Maps logits float32 `[R, V]` to logits; −inf means removed. Must not write to `z`."""

    def observe(self, s: State, chosen: Tensor, logp: Tensor) -> None:  # noqa: B027 — most learn nothing
        """Learns which token was taken.

        Args:
            s: This stage's state, updated in place.
            chosen: int64 `[R]`.
            logp: float32 `[R]`, its log-probability in the final distribution.
        """


@dataclass(frozen=True, slots=True)
class Edge:
    """How a filter cuts, in words: candidates are put in order of a key, and all beyond an edge go.

    The edge is the smallest key with which the candidates up to it weigh what a parameter asks for. Those
    whose keys are equal stay or go together. What `apply` does remains the definition; this says the same
    so that the whole step can be one fused operation where there is one.

    Attributes:
        key: "depth", how far a logit lies below the best one, `max z − z`; or "surprise", how far from the
            entropy a token's surprise is, `|−log p − H|`.
        weight: What is added up: "count", 1 for each candidate, or "mass", its probability among those that
            earlier filters left. None adds nothing up: the edge is `−log` of the parameter.
        param: Name of the parameter. At its neutral value everything stays.
    """

    key: Literal["depth", "surprise"]
    weight: Literal["count", "mass"] | None
    param: str


class Filter(Stage):
    """A stage that makes a sampling strategy of its own (one file, one filter, one strategy)."""

    name: ClassVar[str]
    """Registry name, as in config.toml: lower case, underscores."""
    title: ClassVar[str]
    """As the sidebar shows it."""
    summary: ClassVar[str]
    """One line for lists and help."""
    rank: ClassVar[int] = 100
    """Position in lists; the first nine get the digit keys."""
    edge: ClassVar[Edge | None] = None
    """How it cuts, if it can be said so; then it runs fused on a GPU. Optional."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a model's forward returns.

    Attributes:
        logits: float `[R, K, V]` in the model's own precision or float32.
        hidden: float `[R, K, layers + 1, D]` when asked for.
    """

    logits: Tensor
    hidden: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a strategy decided.

    Attributes:
        chosen: int64 `[R]`, the next token of each row.
        final: float32 `[R, V]`, logits of the distribution that the choice was made from; −inf means
            removed. Greedy leaves one candidate, so its final probability is 1. After proposals
            `[R, K, V]`, one distribution a position.
        parent: int64 `[R]`, the row that each new row continues; None where every row continues itself.
        accepted: int64 `[R]`, how many of the proposals were taken; None where none are made.
        tokens: int64 `[R, K]`, after proposals the tokens of all positions: those accepted, then `chosen`,
            then whatever.
        done: bool `[R]`, rows that the strategy itself declares finished; None leaves it to end-of-sequence.
        extras: float32 `[R]` for each name in `Decoder.columns`; after proposals `[R, K]`.
        candidates: The same numbers for every token of the vocabulary, float32 `[R, V]` for each name in
            `Decoder.columns` and with rows as in `final`; they are recorded of the alternatives. Empty where
            nothing is to be told of them.
    """

    chosen: Tensor
    final: Tensor
    parent: Tensor | None = None
    accepted: Tensor | None = None
    tokens: Tensor | None = None
    done: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    candidates: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """One flow of logits that a strategy reads: a model role over a variant of the prompt."""

    name: str
    role: str
    prompt: str = "main"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of several finished sequences is the answer, and its score."""

    tokens: tuple[int, ...]
    score: float


class Decoder(ABC):
    """A whole strategy: from the models' logits to the next token of each row.

    A decoder object holds no state of a run; `init` allocates it. `params` is what the sidebar shows, own
    parameters first.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    rank: ClassVar[int] = 100
    params: tuple[Param, ...] = ()
    roles: ClassVar[tuple[str, ...]] = ("model",)
    """Model roles it needs, the main one first: ("model",), ("expert", "amateur"), ("model", "draft")."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Names of the extra numbers recorded for each token."""
    id_columns: ClassVar[tuple[str, ...]] = ()
    """Those of them that are ids of tokens, −1 for none."""
    owns_eos: ClassVar[bool] = False
    """Whether the strategy decides itself what an end-of-sequence token means (beam search does)."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The flows of logits it reads; by default one per role, over the same prompt."""
        return tuple(Stream(role, role) for role in self.roles)

    def rows(self, values: Mapping[str, float]) -> int:
        """How many rows it decodes side by side for one answer (a beam's width)."""
        return 1

    def lookahead(self, values: Mapping[str, float]) -> int:
        """How many tokens are proposed before the main model reads them all at once; 0 for most.

        The last role then is the draft's: its logits go to `propose` alone, and `step` gets the main
        model's at `K = lookahead + 1` positions (1 at the start of a run, when nothing is proposed yet).
        """
        return 0

    def propose(self, out: Output, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Proposes the token at position `at` from the draft's logits after the one before it.

        Returns:
            int64 `[R]`.
        """
        raise NotImplementedError(f"{self.name} proposes nothing")

    def cut_by(self, values: Mapping[str, float]) -> str:
        """Names what made a candidate's number −inf in the last column, for readers: "alpha"."""
        return ""

    def from_checkpoint(self, generation_config: Mapping[str, Any]) -> Mapping[str, float]:
        """Parameter values that a checkpoint's own generation_config.json asks for; most ask not."""
        return {}

    @abstractmethod
    def init(self, env: Env) -> State:
        """Allocates the run's state; row-first tensors, updated in place by `step`."""

    @abstractmethod
    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Decides the next token of each row from the last position of each stream's logits."""

    def finish(self, records: Records) -> Choice | None:
        """Chooses the answer among rows once the run has ended, on the host; None where there is one row."""
        return None

    def ranked(self, records: Records) -> list[Choice]:
        """Every finished sequence of a strategy that chooses, best first: the first is the answer."""
        choice = self.finish(records)
        return [] if choice is None else [choice]


@dataclass(frozen=True, slots=True)
class Records:
    """A run's steps on the host, for `Decoder.finish`: lists indexed `[step][row]`."""

    tokens: Sequence[Sequence[int]]
    parents: Sequence[Sequence[int]]
    extras: Mapping[str, Sequence[Sequence[float]]]
    values: Mapping[str, float]

    def path(self, step: int, row: int) -> tuple[int, ...]:
        """The tokens of the sequence that ends at `(step, row)`, following parents back to the prompt."""
        tokens: list[int] = []
        for t in range(step, -1, -1):
            tokens.append(int(self.tokens[t][row]))
            row = int(self.parents[t][row])
        return tuple(reversed(tokens))
