"""The engine as a contestant: what the workbench, `run` and the server use, without a screen."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING, Any

from edge_tui.bench.job import BenchError, Job, Timing
from edge_tui.bench.random_models import RandomWeights
from edge_tui.bench.roofline import step_cache, step_weights
from edge_tui.engine import events
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request

if TYPE_CHECKING:
    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.models.base import ModelInfo
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.text.tokenizer import Tokenizer

NAME = "edge-tui"
_POLL = 0.002
_LETTERS = "etaoinshrdlucmfwypvbgk"


@dataclass(slots=True)
class Facts:
    """What is known of a loaded model without holding its weights."""

    info: ModelInfo
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    context: int
    making: float
    """Seconds that making random weights took; NaN where they were read."""


@dataclass(slots=True)
class Ours:
    """A running engine.

    Attributes:
        specs: Model by role.
        invented: Names of the models whose weights are random.
        facts: By model name, once it was loaded.
        load_seconds: By role, of the latest load.
        endless: Whether texts go on for as long as they are told to, whatever the model says.
        text: Of the latest run's first row, or its answer.
        steps: Of the latest run; a beam search's answer may be shorter.
        read: What the latest run told of its prompt, if it was asked to.
        notices: What the engine remarked during the latest run.
    """

    specs: dict[str, ModelSpec]
    invented: frozenset[str] = frozenset()
    name: str = NAME
    facts: dict[str, Facts] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)
    endless: bool = True
    text: str = ""
    steps: int = 0
    read: events.PromptRead | None = None
    notices: list[str] = field(default_factory=list)
    _engine: LocalEngine = field(init=False)
    _present: set[ModelSpec] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._engine = LocalEngine(dict(self.specs), self._load)

    def load(self, role: str = "model") -> Facts:
        """Loads a role's model and waits for it.

        Raises:
            BenchError: it cannot be loaded.
        """
        spec = self.specs[role]
        if spec not in self._present:
            self._engine.load(role)
            self._wait(events.Loaded)
            self._present.add(spec)
        return self.facts[spec.name]

    def unload(self, role: str = "model") -> None:
        """Frees a role's model and waits until it is gone."""
        self._engine.unload(role)
        self._wait(events.Unloaded)
        self._present.discard(self.specs[role])

    def run(self, job: Job, ids: Sequence[int]) -> Timing:
        """Decodes a job after a prompt of these ids, as a user would.

        Raises:
            BenchError: the engine says why not.
        """
        end = self.ask(
            Request(
                prompt="",
                ids=tuple(ids),
                strategy=job.strategy,
                values=dict(job.values),
                seed=job.seed,
                max_length=job.tokens,
                samples=job.batch,
            )
        )
        return Timing(end.time_to_first_token, end.seconds, self.steps, len(ids))

    def ask(self, request: Request) -> events.Finished:
        """Runs any request to its end; its text is in `text` then.

        Raises:
            BenchError: the engine says why not.
        """
        self.notices.clear()
        self._engine.submit(request)
        end: events.Finished = self._wait(events.Finished)
        self.text = end.answer_text if end.answer_text is not None else self.text + end.tail
        return end

    def score(self, ids: Sequence[int]) -> Sequence[float]:
        """The log-probability of each of a text's tokens, in nats; NaN for the first.

        Raises:
            BenchError: the engine says why not.
        """
        self.ask(Request(prompt="", ids=tuple(ids), strategy="greedy", max_length=0, prompt_logps=True))
        assert self.read is not None
        logps: list[float] = self.read.logp.tolist()
        return logps

    def floor_bytes(self, roles: tuple[str, ...], job: Job, rows: int) -> float:
        """Bytes that a step has to read, all its models together."""
        total = 0.0
        for role in roles:
            fact = self.facts[self.specs[role].name]
            total += step_weights(fact.info, fact.config)
            total += step_cache(fact.info, job.prompt, job.tokens, rows)
        return total

    def close(self) -> None:
        """Ends the engine and frees its models."""
        self._engine.close(timeout=30.0)

    def _load(self, spec: ModelSpec, *callbacks: Any) -> LoadedModel:
        loaded, making = load(spec, *callbacks, invented=spec.name in self.invented)
        info, config = loaded.model.info, loaded.checkpoint.config
        self.facts[spec.name] = Facts(info, config, loaded.tokenizer, loaded.context, making)
        return replace(loaded, checkpoint=unending(loaded.checkpoint)) if self.endless else loaded

    def _wait(self, kind: type[Any]) -> Any:
        """Takes events until one of this kind comes.

        Raises:
            BenchError: the engine failed.
        """
        while True:
            for event in self._engine.poll():
                match event:
                    case events.Loaded():
                        self.load_seconds[event.role] = event.seconds
                    case events.Started():
                        self.text, self.steps = "", 0
                    case events.Noticed():
                        self.notices.append(event.message)
                    case events.PromptRead():
                        self.read = event
                    case events.TokenBatch():
                        self.steps = max(self.steps, int(event.step[-1]) + 1)
                        pairs = zip(event.row.tolist(), event.text, strict=True)
                        self.text += "".join(text for row, text in pairs if row == 0)
                    case events.Failed() | events.Died():
                        raise BenchError(event.message)
                if isinstance(event, kind):
                    return event
            if not self._engine.alive():
                raise BenchError("The engine stopped without saying why.")
            time.sleep(_POLL)


def load(
    spec: ModelSpec,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    *,
    invented: bool,
) -> tuple[LoadedModel, float]:
    """The loader of every user; an invented model's weights are made instead of read.

    Returns:
        The model, and the seconds that making its weights took: NaN where they were read.
    """
    from edge_tui.engine.models import loader

    made: list[RandomWeights] = []

    def weights_from(*arguments: Any) -> RandomWeights:
        made.append(RandomWeights(*arguments))
        return made[-1]

    loaded = loader.load(spec, progress, cancelled, weights_from if invented else None)
    return loaded, made[-1].seconds if made else nan


def unending(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint without an end-of-sequence token: what is measured must not end early."""

    def without(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if key not in ("eos_token_id", "eos_token")}

    return replace(
        checkpoint,
        config=without(checkpoint.config),
        generation_config=without(checkpoint.generation_config),
        tokenizer_config=without(checkpoint.tokenizer_config),
    )


def prompt_ids(tokenizer: Tokenizer, tokens: int, number: int) -> list[int]:
    """A prompt of so many tokens; another `number` begins otherwise, so that nothing read is used again."""
    rng = random.Random(number)
    source = inspect.getsource(random)
    at = rng.randrange(len(source) // 2)
    body = source[at:]
    while len(body) < 12 * tokens:
        body += source
    lead = _LETTERS[number % len(_LETTERS)]
    return tokenizer.encode(f"{lead} {body[: 12 * tokens]}")[:tokens]
