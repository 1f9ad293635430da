"""Runs benchmark jobs on the engine that the workbench, `run` and the server use."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

from edge_tui.bench.job import BenchError, Job, Timing
from edge_tui.bench.random_models import RandomWeights
from edge_tui.bench.roofline import kv_bytes_per_step, weight_bytes_per_step
from edge_tui.engine import events
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.transcript.run_state import RunState

if TYPE_CHECKING:
    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.models.base import ModelInfo
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.text.tokenizer import Tokenizer

NAME = "edge-tui"
_POLL = 0.002
_LETTERS = "etaoinshrdlucmfwypvbgk"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Describes a loaded model without holding its weights."""

    info: ModelInfo
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    context: int
    weights_seconds: float
    """Spent making random weights; NaN where they were read."""


class EdgeRunner:
    """Submits requests to an engine and waits for their end.

    Args:
        specs: Model by role.
        random_weights: Names of the models whose weights are random.
        ignore_eos: True gives texts the full number of tokens, whatever the model says.

    Attributes:
        facts: By model name, once it was loaded.
        state: Of the latest run. The answer of a beam search may have fewer tokens than it has steps.
        text: Of the latest run's first row, or its answer.
    """

    def __init__(
        self,
        specs: Mapping[str, ModelSpec],
        random_weights: Collection[str] = (),
        ignore_eos: bool = True,
    ) -> None:
        self.facts: dict[str, ModelFacts] = {}
        self.state = RunState()
        self.text = ""
        self._specs = dict(specs)
        self._random_weights = random_weights
        self._ignore_eos = ignore_eos
        self._loaded: set[ModelSpec] = set()
        self._engine = LocalEngine(self._specs, self._load)

    def load(self, role: str = "model") -> ModelFacts:
        """Loads a role's model and waits for it.

        Raises:
            BenchError: it cannot be loaded.
        """
        spec = self._specs[role]
        if spec not in self._loaded:
            self._engine.load(role)
            self._wait(events.Loaded)
            self._loaded.add(spec)
        return self.facts[spec.name]

    def unload(self, role: str = "model") -> None:
        """Frees a role's model and waits until it is gone."""
        self._engine.unload(role)
        self._wait(events.Unloaded)
        self._loaded.discard(self._specs[role])

    def decode(self, job: Job, ids: Sequence[int]) -> Timing:
        """Decodes a job after a prompt of these ids.

        Raises:
            BenchError: the engine refuses or fails.
        """
        began = time.perf_counter()
        end = self.generate(job.request("", ids=tuple(ids), samples=job.batch))
        waited = time.perf_counter() - began - end.time_to_first_token - end.seconds
        return Timing(end.time_to_first_token, end.seconds, self.state.steps, len(ids), max(0.0, waited))

    def generate(self, request: Request) -> events.Finished:
        """Runs any request to its end; `state` and `text` are its own then.

        Raises:
            BenchError: the engine refuses or fails.
        """
        self.state, self.text = RunState(), ""
        self._engine.submit(request)
        end: events.Finished = self._wait(events.Finished)
        self.text = end.answer_text if end.answer_text is not None else self.text + end.tail
        return end

    def score(self, ids: Sequence[int]) -> Sequence[float]:
        """Computes the log-probability of each of a text's tokens, in nats; NaN for the first.

        Raises:
            BenchError: the engine refuses or fails.
        """
        self.generate(Request(prompt="", ids=tuple(ids), strategy="greedy", max_length=0, prompt_logps=True))
        assert self.state.prompt is not None
        logps: list[float] = self.state.prompt.logp.tolist()
        return logps

    def step_bytes(self, roles: Sequence[str], job: Job, rows: int) -> float:
        """Counts the bytes that a step has to read, all its models together."""
        specs = [self._specs[role] for role in roles]
        facts = [self.facts[spec.name] for spec in specs]
        read = [self.facts[spec.name] for spec in dict.fromkeys(specs)]  # once for all roles of a model
        return sum(weight_bytes_per_step(each.info, each.config) for each in read) + sum(
            kv_bytes_per_step(each.info, job.prompt, job.tokens, rows) for each in facts
        )

    def close(self) -> None:
        """Ends the engine and frees its models."""
        self._engine.close(timeout=30.0)

    def _load(self, spec: ModelSpec, *callbacks: Any) -> LoadedModel:
        loaded, seconds = load(spec, *callbacks, random_weights=spec.name in self._random_weights)
        info, config = loaded.model.info, loaded.checkpoint.config
        self.facts[spec.name] = ModelFacts(info, config, loaded.tokenizer, loaded.context, seconds)
        return replace(loaded, checkpoint=without_eos(loaded.checkpoint)) if self._ignore_eos else loaded

    def _wait(self, kind: type[Any]) -> Any:
        """Takes events until one of this kind comes.

        Raises:
            BenchError: the engine failed.
        """
        while True:
            for event in self._engine.poll():
                self.state.apply(event)
                if isinstance(event, events.TokenBatch):
                    pairs = zip(event.row.tolist(), event.text, strict=True)
                    self.text += "".join(text for row, text in pairs if row == 0)
                elif isinstance(event, events.Failed | events.Died):
                    raise BenchError(event.message)
                elif isinstance(event, kind):
                    return event
            if not self._engine.alive():
                raise BenchError("The engine stopped without an error.")
            time.sleep(_POLL)


def load(
    spec: ModelSpec,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    *,
    random_weights: bool,
) -> tuple[LoadedModel, float]:
    """Loads a model as the engine does, or with random weights in place of the file's.

    Returns:
        The model, and the seconds spent on making random weights: NaN where they were read.
    """
    from edge_tui.engine.models import loader

    made: list[RandomWeights] = []

    def weights_from(*arguments: Any) -> RandomWeights:
        made.append(RandomWeights(*arguments))
        return made[-1]

    loaded = loader.load(spec, progress, cancelled, weights_from if random_weights else None)
    return loaded, made[-1].seconds if made else nan


def without_eos(checkpoint: Checkpoint) -> Checkpoint:
    """Copies a checkpoint without its end-of-sequence token, so that no measured text ends early."""

    def without(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if key not in ("eos_token_id", "eos_token")}

    return replace(
        checkpoint,
        config=without(checkpoint.config),
        generation_config=without(checkpoint.generation_config),
        tokenizer_config=without(checkpoint.tokenizer_config),
    )


def prompt_ids(tokenizer: Tokenizer, tokens: int, number: int) -> list[int]:
    """Makes a prompt of so many tokens; each `number` begins differently, so the prefix cache has none."""
    rng = random.Random(number)
    source = inspect.getsource(random)
    at = rng.randrange(len(source) // 2)
    body = source[at:]
    while len(body) < 12 * tokens:
        body += source
    lead = _LETTERS[number % len(_LETTERS)]
    return tokenizer.encode(f"{lead} {body[: 12 * tokens]}")[:tokens]
