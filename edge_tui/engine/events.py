"""Defines what an engine reports: columns of tokens, and changes of state.

Everything here is plain data (numpy columns, strings, numbers), so that a screen, a pipe, a server or a
file can consume it without knowing torch. Importing it loads neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_tui.decoders.core.column import BEAM_ROLES, Column, as_columns
from edge_tui.decoders.core.texts import Value
from edge_tui.engine.token_batch import TokenBatch as TokenBatch
from edge_tui.engine.token_fields import TOP as TOP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.decoders.core.errors import Problem
    from edge_tui.engine.explanation import Explanation

    Ints = NDArray[np.int32]
    Floats = NDArray[np.float32]

FinishReason = Literal["eos", "stop", "length", "cancelled", "context", "done"]
"""Codes of why a run ended."""
FINISH_REASONS: dict[str, str] = {
    "eos": "end of sequence",
    "stop": "stop string",
    "length": "max_length reached",
    "cancelled": "stopped",
    "context": "context full",
    "done": "every hypothesis finished",
}
"""The codes in words, for readers."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Holds one parameter of a run as it was used, and its source."""

    value: Value
    source: str
    """"default", "config.toml", "environment", "flag", "generation_config.json", "mode", "user"."""
    checkpoint: Value | None = None
    """The value of the checkpoint's generation_config.json, where another source overrides it."""


@dataclass(frozen=True, slots=True)
class Queued:
    """Reports that a run was accepted and waits for the owner thread."""

    run: int


_PROPOSAL_ROLES = {"rejected": "token"}
"""Roles of names in records that speculative decoding wrote without one."""


@dataclass(frozen=True, slots=True)
class Started:
    """Reports that a run has begun.

    Attributes:
        run: The run's id.
        strategy: Its registry name.
        rows: Rows decoded side by side.
        columns: Names of `TokenBatch.extras`.
        prompt_tokens: Length of the prompt, prefix not counted.
        prefix_tokens: Generated tokens of an earlier run that this one continues.
        reused_tokens: Positions whose keys and values were still there.
        max_new_tokens: Bound after clamping to the context.
        seed: The seed in use, also when the user left it to chance.
        values: Every parameter, with its source.
        notices: Sentences the user should read ("No chat template: raw completion.").
        thinking: True where the chat template has opened a thought: the answer begins inside it.
        control_tokens: Names of control tokens in the prompt that were read as such.
        end_ids: Ids that end an answer and are no part of its text.
        kept_texts: Texts of the prefix's tokens, as in `TokenBatch`; empty where they are not known.
        model: Name of the model that writes it; "" where that is not known.
        column_details: The meaning of `columns`; where an older edge-tui wrote it, that of the names alone.
        version: Of the edge-tui that decodes; "" where that is not known, as of the next three.
        device_name: Product name of the device that decodes.
        kernels: How the main model's step runs (`Caps.kernels`).
        threads: Threads of a CPU that decodes; 0 for other devices.
    """

    run: int
    strategy: str
    rows: int
    columns: tuple[str, ...]
    prompt_tokens: int
    prefix_tokens: int
    reused_tokens: int
    max_new_tokens: int
    seed: int
    values: dict[str, Resolved]
    notices: tuple[str, ...] = ()
    thinking: bool = False
    control_tokens: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()
    kept_texts: tuple[str, ...] = ()
    model: str = ""
    column_details: tuple[Column, ...] = ()
    version: str = ""
    device_name: str = ""
    kernels: str = ""
    threads: int = 0

    def __post_init__(self) -> None:
        if tuple(column.name for column in self.column_details) != self.columns:
            roles = BEAM_ROLES if self.rows > 1 else _PROPOSAL_ROLES
            object.__setattr__(self, "column_details", as_columns(self.columns, roles))


@dataclass(frozen=True, slots=True)
class Progress:
    """Reports how far a load (in bytes), a compilation (in kernels) or a prefill (in tokens) is.

    "capture" reports that a run's step was captured, and so that it is at its speed from now on.
    """

    what: Literal["load", "compile", "prefill", "capture"]
    done: int
    total: int
    name: str = ""
    run: int | None = None


@dataclass(frozen=True, slots=True)
class PromptRead:
    """Holds what the model thinks of the prompt's own tokens, and of the one after them; before `Started`.

    Attributes:
        run: The run's id.
        ids: The prompt's `n` tokens, those of the prefix included.
        logp: float32 `[n]`, each token's log-probability given those before it (nats); NaN for the first.
        rank: int32 `[n]`, 0 = the most likely token in its place; −1 for the first.
        entropy: float32 `[n]`, of the distribution in its place (nats); NaN for the first.
        top_ids, top_logp: int32/float32 `[n, TOP]`, the most likely tokens in its place, best first.
        next_entropy: Entropy of the distribution after the prompt (nats).
        next_ids, next_logp: int32/float32 `[TOP]`, the most likely tokens after it, best first.
        text: `n` strings whose concatenation is the prompt's text, as in `TokenBatch`.
        roles: `n` roles of the turns that the tokens are of ("user", "system", "assistant"), "" for what the
            template or the tokenizer wrote; empty where that is not known.
        control_ids: Ids in the prompt that are control tokens.
    """

    run: int
    ids: tuple[int, ...]
    logp: Floats
    rank: Ints
    entropy: Floats
    top_ids: Ints
    top_logp: Floats
    next_entropy: float
    next_ids: Ints
    next_logp: Floats
    text: tuple[str, ...]
    roles: tuple[str, ...] = ()
    control_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Reports a run's first token on the host, with the seconds since the run left the queue."""

    run: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ParamChanged:
    """Reports a parameter's new value while a run goes on; `index` is the first token it held for."""

    run: int
    name: str
    value: float
    version: int
    index: int


@dataclass(frozen=True, slots=True)
class Noticed:
    """Reports one sentence that a user should read while a run goes on."""

    run: int
    message: str


@dataclass(frozen=True, slots=True)
class Ranked:
    """Holds one of the finished sequences that a strategy chose among."""

    tokens: tuple[int, ...]
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Reports that a run has ended. Timings in seconds on the monotonic clock.

    Attributes:
        run: The run's id.
        reason: A key of `FINISH_REASONS`.
        new_tokens: Tokens of the answer; of all samples together.
        time_to_first_token: From leaving the queue to the first token on the host.
        seconds: From the first token to the last.
        answer: For strategies that choose among rows (beams): the chosen path's tokens.
        answer_text: Its text.
        score: Its score.
        peak_bytes: Peak device memory of the run, None where unknown.
        tail: Text that became certain only with the end (an unfinished character); belongs to the last token.
        reasons: `reason` of each sample, by row; empty before anything was decoded.
        tails: `tail` of each sample, by row.
        ranked: For strategies that choose among rows: the finished sequences, best first.
        proposing_ended: For strategies that propose tokens: the step of the run (a forward of the main model,
            counted from 0) from which on nothing was proposed; −1 where that never came. None where it is not
            known, and for other strategies.
    """

    run: int
    reason: FinishReason
    new_tokens: int
    time_to_first_token: float
    seconds: float
    answer: tuple[int, ...] | None = None
    answer_text: str | None = None
    score: float | None = None
    peak_bytes: int | None = None
    tail: str = ""
    reasons: tuple[FinishReason, ...] = ()
    tails: tuple[str, ...] = ()
    ranked: tuple[Ranked, ...] = ()
    proposing_ended: int | None = None

    @property
    def tokens_per_second(self) -> float:
        """The decode rate; the first token belongs to the prefill."""
        return (self.new_tokens - 1) / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Explained:
    """Answers a question about a token; `question` is what `Engine.explain` returned."""

    question: int
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Failed:
    """Reports what could not be done.

    Attributes:
        message: For the user, one sentence: the thing, the limit, the way out.
        run: The run it ended, or the question that it answers; None for neither.
        field: The setting or parameter at fault, if one is.
        detail: A traceback for the log; never shown.
        problem: File, line and sentence where a strategy of the user's is at fault.
        role: The role whose model could not be loaded, if `load` was asked for it.
        code: For programs: the `code` of the error's class (`edge_tui/errors.py`), "cancelled",
            "out_of_memory", "not_a_number", "strategy_error", or "error" for a fault of the program.
    """

    message: str
    run: int | None = None
    field: str = ""
    detail: str = ""
    problem: Problem | None = None
    role: str = ""
    code: str = "error"


@dataclass(frozen=True, slots=True)
class Loading:
    """Reports that a model starts to load for a role."""

    role: str
    name: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Reports that a model is in memory, and its facts.

    Attributes:
        role: Role it was loaded for.
        name: The model's name.
        architecture: From its config.
        tier: "flat" or "transformers".
        device: Its device.
        precision: As loaded.
        dtype: Compute dtype.
        vocab: Size of the tokenizer's vocabulary.
        context: Context limit in tokens.
        parameters: Number of weights.
        weight_bytes: Weights in memory.
        seconds: Load time.
        chat: True where the tokenizer has a chat template.
        notices: Sentences about what the tier cannot do, and others the user should read.
    """

    role: str
    name: str
    architecture: str
    tier: str
    device: str
    precision: str
    dtype: str
    vocab: int
    context: int
    parameters: int
    weight_bytes: int
    seconds: float
    chat: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unloaded:
    """Reports that a model was freed, with the device's allocated bytes before and after."""

    roles: tuple[str, ...]
    name: str
    before_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class Died:
    """Reports that the owner thread ended unexpectedly."""

    message: str
    detail: str = field(default="", repr=False)


Event = (
    TokenBatch
    | Queued
    | Started
    | Progress
    | PromptRead
    | FirstToken
    | ParamChanged
    | Noticed
    | Finished
    | Explained
    | Failed
    | Loading
    | Loaded
    | Unloaded
    | Died
)
