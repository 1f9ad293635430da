"""Defines the engine's interface: submit, explain, set, cancel, load, unload, poll.

Screens, pipes and servers use it alone; the tokens come from a thread of this process (`local.py`) or from
another machine (`remote/`). Importing it loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Literal, Protocol

from edge_tui.decoders.core.texts import Value

if TYPE_CHECKING:
    from edge_tui.engine.events import Event

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8", "4bit"]
Mode = Literal["custom", "exploratory", "focused"]
MODE_TEMPERATURE: dict[str, float] = {"exploratory": 1.5, "focused": 0.7}
"""Temperatures that the named modes set; custom leaves the user's own."""

FOLLOWERS = {"model": "expert", "amateur": "draft"}
"""Role → the role that has the same model unless it is given one of its own."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Names the weights of a model, their precision and their device.

    Attributes:
        name: "demo/expert", a repository id in the local cache, or the path of a folder or GGUF file.
        precision: As asked for; "auto" takes the checkpoint's own on a GPU, and what is fastest on a CPU.
        device: "auto" (the GPU with most free memory, else MPS, else the CPU), "cuda:N", "cpu", "mps".
        context: Positions to reserve; 0 means the model's own limit, at most what memory allows.
    """

    name: str
    precision: Precision = "auto"
    device: str = "auto"
    context: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """Holds one turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """Describes one generation.

    Attributes:
        prompt: Text, or turns of a conversation.
        strategy: Registry name or alias of a decoder.
        values: Parameters by name; missing ones take their defaults, unknown names are refused.
            A list of texts is a tuple.
        sources: Source of each of `values`, for display ("config.toml", "flag", "user").
        mode: "exploratory" and "focused" set the temperature.
        seed: None or −1 draws one, which `Started` has.
        max_length: Most *new* tokens.
        stop: Strings that end the text; they are not part of it.
        chat: Wrap the prompt in the checkpoint's chat template: True, False, or None for "if it has one".
        system: System prompt for the chat template.
        template: Variables of the chat template by name, values as JSON has them (`enable_thinking`).
        control_tokens: True reads a control token's name in the prompt (`<|im_end|>`) as that token; False as
            text like any other.
        prefix: Ids of generated tokens to keep (continue, take an alternative); part of the answer.
        prefix_logps: Log-probability of each kept token under the model, and in the distribution that it was
            taken from, as their run recorded them; NaN where that is not known. A strategy that learns makes
            its state anew of them; without them it decodes the kept tokens again.
        prefix_values: Parameters that the kept tokens were taken under, where they are others than `values`:
            from a kept token's index on, in order.
        proposing_ends: The step of the run from which on nothing is proposed, as an earlier run's
            `Finished.proposing_ended` has it; −1 proposes to the end. None ends it where proposing loses,
            which depends on time. Strategies that propose nothing ignore it.
        samples: Answers decoded side by side in one batch; sample `r` is the run of seed `seed + r`.
        ids: The prompt as token ids, in place of `prompt`.
        prompt_logps: True adds the log-probabilities of the prompt's own tokens (`PromptRead`). With it
            `max_length` may be 0.
        watched: True sends tokens as they come. False sends all of them at once, with the end.
    """

    prompt: str | tuple[Message, ...]
    strategy: str = "auto"
    values: Mapping[str, Value] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = "custom"
    seed: int | None = None
    max_length: int = 256
    stop: tuple[str, ...] = ()
    chat: bool | None = None
    system: str = ""
    template: Mapping[str, object] = field(default_factory=dict)
    control_tokens: bool = False
    prefix: tuple[int, ...] = ()
    prefix_logps: tuple[tuple[float, float], ...] = ()
    prefix_values: tuple[tuple[int, Mapping[str, float | str]], ...] = ()
    proposing_ends: int | None = None
    samples: int = 1
    ids: tuple[int, ...] = ()
    prompt_logps: bool = False
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """Asks why one token of a run was taken.

    Attributes:
        request: That of the run, with the seed that it used. `prefix` is the answer before the token, with
            `prefix_logps` and `prefix_values` as a run that goes on has them; `samples` is 1 and the seed
            that of the row.
        token: The id that was taken.
        ids: Tokens to tell of beside the likeliest and those with the best sums.
        margin: The recorded margin; NaN where there is none.
        others: Strategies to ask what they would have taken; empty asks those on the digits.
        model: Name of the model that wrote the run; "" where that is not known.
        recorded: The strategy's own numbers that were recorded with the token, by column, and `parent`, the
            row that it continues; empty where they are not known.
    """

    request: Request
    token: int
    ids: tuple[int, ...] = ()
    margin: float = nan
    others: tuple[str, ...] = ()
    model: str = ""
    recorded: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """Holds the decode device's memory as the engine knows it, in bytes; None where unknown."""

    device: str
    allocated: int | None
    peak: int | None


class Engine(Protocol):
    """Runs generations, one at a time, on models it loads on demand. Every method returns at once."""

    def submit(self, request: Request, beside: int | None = None) -> int:
        """Queues a generation and returns its run id; mistakes in it arrive as `Failed`.

        Args:
            request: The generation.
            beside: A run under way, to decode in turn with; where it has ended, or an engine cannot, the
                generation waits as any other.
        """

    def explain(self, question: Question) -> int:
        """Queues a question and returns its number, which no run has.

        It waits for the runs before it, loads no model and leaves their contexts as they are. `Explained`
        answers it, or `Failed` with that number as its run: code "cannot_explain" where there is nothing to
        compute, "cancelled" after `cancel`.
        """

    def set(self, run: int, name: str, value: Value) -> None:
        """Changes a live parameter of a running generation; `ParamChanged` says from which token on.

        Raises:
            edge_tui.decoders.base.ParamError: the value is out of range, or the parameter is fixed for a run.
        """

    def cancel(self, run: int | None = None) -> None:
        """Stops a run (or all of them) within one step, or a question; loading of a model is not a run."""

    def assign(self, role: str, spec: ModelSpec) -> None:
        """Assigns a model to a role; it loads on first use. A model that no role has is unloaded."""

    def load(self, role: str) -> None:
        """Loads the role's model now."""

    def unload(self, role: str) -> None:
        """Frees the role's model (a run that uses it is cancelled first); it loads again on next use."""

    def refusal(self, strategy: str) -> str:
        """Says why this engine cannot run a strategy; "" if it can, or if that is not known yet."""

    def poll(self) -> list[Event]:
        """Takes the events since the last call, in order. Never blocks."""

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Decodes single tokens, for alternatives; "" for ids outside the vocabulary.

        The vocabulary is that of the run that began last, whichever model has been loaded since.
        """

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        """Counts a prompt's tokens under the main role's tokenizer; None while that is not known."""

    def ids(self, text: str) -> tuple[int, ...] | None:
        """Encodes a text as it stands within an answer.

        None while that is not known: the main role's tokenizer is not loaded, or a server has been asked.

        Raises:
            edge_tui.errors.RequestError: a server cannot tell; a later call asks again.
        """

    def memory(self) -> Memory:
        """Reads the memory of the decode device."""

    def alive(self) -> bool:
        """Tells whether the owner thread can take work."""

    def close(self, timeout: float = 1.0) -> bool:
        """Stops the engine; True if it ended within `timeout` seconds."""
