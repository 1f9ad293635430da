"""The engine as a contestant: what the workbench, `run` and the server use, without a screen."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import nan
from typing import TYPE_CHECKING, Any

from edge_tui.bench.floor import step_cache, step_weights
from edge_tui.bench.job import BenchError, Job, Timing
from edge_tui.bench.random_models import RandomWeights
from edge_tui.engine import events
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request

if TYPE_CHECKING:
    from edge_tui.engine.checkpoint import Checkpoint
    from edge_tui.engine.loader import LoadedModel
    from edge_tui.engine.models.base import ModelInfo
    from edge_tui.engine.text import Codec

NAME = "edge-tui"
_POLL = 0.002
_LETTERS = "etaoinshrdlucmfwypvbgk"


@dataclass(slots=True)
class Facts:
    """What is known of a loaded model without holding its weights."""

    info: ModelInfo
    config: Mapping[str, Any]
    codec: Codec
    context: int
    notices: tuple[str, ...] = ()
    making: float = nan
    """Seconds that making random weights took; NaN where they were read."""


@dataclass(slots=True)
class Ours:
    """A running engine.

    Attributes:
        specs: Model by role.
        invented: Names of the models whose weights are random.
        facts: By model name, once it was loaded.
        load_seconds: By role, of the latest load.
        last: The latest run's last event.
        started: Its first.
        steps: Its steps; a beam search's answer may be shorter.
    """

    specs: dict[str, ModelSpec]
    invented: frozenset[str] = frozenset()
    name: str = NAME
    facts: dict[str, Facts] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)
    last: events.Finished | None = None
    started: events.Started | None = None
    steps: int = 0
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

    def run(self, job: Job, text: str) -> Timing:
        """Decodes once, as a user would.

        Raises:
            BenchError: the engine says why not.
        """
        request = Request(
            prompt=text,
            strategy=job.strategy,
            values=dict(job.values),
            seed=job.seed,
            max_length=job.tokens,
            chat=False,
        )
        self._engine.submit(request)
        end = self._wait(events.Finished)
        assert self.started is not None
        self.last = end
        return Timing(
            first=end.time_to_first_token,
            decode=end.seconds,
            tokens=self.steps,
            prompt=self.started.prompt_tokens,
        )

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

    def _load(
        self,
        spec: ModelSpec,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> LoadedModel:
        """The loader of every user, but texts do not end before their time."""
        from edge_tui.engine.loader import load

        made: list[RandomWeights] = []

        def source(*arguments: Any) -> RandomWeights:
            made.append(RandomWeights(*arguments))
            return made[-1]

        loaded = load(spec, progress, cancelled, source if spec.name in self.invented else None)
        self.facts[spec.name] = Facts(
            loaded.model.info,
            loaded.checkpoint.config,
            loaded.codec,
            loaded.context,
            loaded.notices,
            made[-1].seconds if made else nan,
        )
        return replace(loaded, checkpoint=endless(loaded.checkpoint))

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
                        self.started, self.steps = event, 0
                    case events.TokenBatch():
                        self.steps = max(self.steps, int(event.step[-1]) + 1)
                    case events.Failed() | events.Died():
                        raise BenchError(event.message)
                if isinstance(event, kind):
                    return event
            if not self._engine.alive():
                raise BenchError("The engine stopped without saying why.")
            time.sleep(_POLL)


def endless(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint without an end-of-sequence token: what is measured must not end early."""

    def without(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if key not in ("eos_token_id", "eos_token")}

    return replace(
        checkpoint,
        config=without(checkpoint.config),
        generation_config=without(checkpoint.generation_config),
        tokenizer_config=without(checkpoint.tokenizer_config),
    )


def prompt_text(codec: Codec, tokens: int, number: int) -> str:
    """A prompt of about so many tokens; another `number` shares no beginning, so that nothing is reused."""
    rng = random.Random(number)
    source = inspect.getsource(random)
    at = rng.randrange(len(source) // 2)
    body = source[at:]
    while len(body) < 12 * tokens:
        body += source
    lead = _LETTERS[number % len(_LETTERS)]
    ids = codec.encode(f"{lead} {body[: 12 * tokens]}")[:tokens]
    return codec.decode(ids)
