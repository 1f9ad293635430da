"""One run from request to last token, on the owner thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import Decoder, Records
from edge_tui.decoders.core import checks
from edge_tui.decoders.core.errors import problem_of
from edge_tui.engine.decode import prompt as prompts
from edge_tui.engine.decode import scoring
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.inspection import check_request
from edge_tui.engine.decode.output_processor import BrokenStep, NotANumber, OutputProcessor
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.resolve import check_ids, resolve_params, room
from edge_tui.engine.decode.speculation_gate import SpeculationGate
from edge_tui.engine.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    FirstToken,
    Noticed,
    ParamChanged,
    Progress,
    Ranked,
    Started,
)
from edge_tui.engine.models.manager import ModelManager, memory_of
from edge_tui.errors import Cancelled, RequestError

if TYPE_CHECKING:
    from edge_tui.engine.decode.run_state import Run
    from edge_tui.engine.models.loader import LoadedModel

_FLUSH = 0.010
"""Seconds between batches: fast enough for any screen, slow enough to cost the decode loop nothing."""
_WARM = 3
"""Steps until everything has been captured."""


def run_request(
    run: Run,
    manager: ModelManager,
    prefix_cache: PrefixCache,
    post: Callable[[Event], None],
    closing: Callable[[], bool],
) -> None:
    """Decodes one request to its end, posting what happens.

    Args:
        run: The request, and the words other threads may change (cancelled, parameters).
        manager: The models.
        prefix_cache: Contexts of earlier runs; updated.
        post: Where events go.
        closing: Whether the engine shuts down.

    Raises:
        RequestError, CheckpointError, LoadError, …: one sentence each; nothing was decoded.
    """

    def stopped() -> bool:
        return run.cancelled or closing()

    began = time.perf_counter()
    request = run.request
    decoder = decoders.find(request.strategy)
    manager.check_pair(decoder.roles)
    alone = decoder.kind != "sample"
    if request.samples < 1 or (request.samples > 1 and alone):
        raise RequestError(
            f"samples is {request.samples}, but must be 1 for {decoder.title}: its rows serve one answer."
            if alone
            else f"samples is {request.samples}, but must be at least 1.",
            "samples",
        )
    if stopped():
        post(Finished(run.id, "cancelled", 0, 0.0, 0.0))
        return
    loaded = {role: manager.get(role, stopped) for role in decoder.roles}
    main = loaded[decoder.roles[0]]
    manager.tokenizer = main.tokenizer
    request = run.request  # parameters may have been turned while the model was loading
    vocab = min(main.tokenizer.size, *(model.model.info.vocab for model in loaded.values()))
    check_ids(request.ids, vocab, "ids")
    check_ids(request.prefix, vocab, "prefix")
    if ended := [token for token in request.prefix if token in main.tokenizer.end_ids]:
        raise RequestError(
            f"The kept tokens hold {main.tokenizer.token_strings(ended)[0]!r}, which ends an answer:"
            " keep only what comes before it.",
            "prefix",
        )
    try:
        prompt = prompts.read(request, main, stopped)
    except Cancelled:
        post(Finished(run.id, "cancelled", 0, 0.0, 0.0))
        return
    ids = [*prompt.ids, *request.prefix]
    own_values = checks.from_checkpoint(decoder, main.checkpoint.generation_config)
    resolved = resolve_params(request, decoder, own_values)
    context = min(model.context for model in loaded.values())
    max_new, clamped = room(
        len(prompt.ids),
        len(request.prefix),
        request.max_length,
        context,
        least=0 if request.prompt_logps else 1,
    )
    generation = Generation(
        decoder,
        {role: model.model for role, model in loaded.items()},
        resolved.values,
        ids,
        len(request.prefix),
        max_new,
        main.tokenizer.end_ids,
        vocab,
        resolved.seed,
        request.samples,
    )
    check_request(decoder, decoder.rows(resolved.values), generation.num_draft_tokens, len(request.prefix))
    _check_rows(generation, loaded, request.samples)
    processor = OutputProcessor(
        run.id,
        decoder,
        main.tokenizer,
        ids,
        len(request.prefix),
        max_new,
        request.stop,
        generation.rows,
        proposes=generation.num_draft_tokens > 0,
    )
    device = main.model.info.device
    _reset_peak(device)
    extra: tuple[str, ...] = (clamped,) if clamped else ()
    if request.stop and decoder.kind == "search":
        extra += ("Stop strings do not end a beam search; they are ignored here.",)
    held = (model.model.notice(generation.total) for model in loaded.values())
    extra += tuple(dict.fromkeys(sentence for sentence in held if sentence))
    extra += decoder.ignored_settings(main.checkpoint.generation_config)

    def reading(done: int, total: int) -> None:
        post(Progress("prefill", done, total, main.model.info.name, run.id))

    def started(reused: int) -> Started:
        return Started(
            run=run.id,
            strategy=decoder.name,
            rows=generation.rows,
            columns=decoder.columns,
            prompt_tokens=len(prompt.ids),
            prefix_tokens=len(request.prefix),
            reused_tokens=reused,
            max_new_tokens=max_new,
            seed=resolved.seed,
            values=resolved.resolved,
            notices=(*prompt.notices, *extra),
            thinking=prompt.thinking,
            control_tokens=prompt.control_tokens,
            end_ids=main.tokenizer.end_ids,
            kept_texts=main.tokenizer.texts(prompt.ids, request.prefix),
            model=main.model.info.name,
        )

    try:
        if request.prompt_logps:
            post(scoring.score(run.id, ids, main, prefix_cache, max_new, stopped))
        reused = generation.prefill(prefix_cache, reading, stopped)
        run.table = generation.table
        for name, value in run.request.values.items():  # turned while the prompt was read
            if request.values.get(name) != value:
                generation.table.set(name, value)
        if request.prefix:
            generation.launch()  # a strategy that learns is refused here, before screens drop the old answer
    except Cancelled:
        post(started(0))
        post(Finished(run.id, "cancelled", 0, 0.0, 0.0))
        return
    except Exception as error:
        if problem_of(error, decoders.is_strategy_file) is not None:
            post(started(0))  # so that histories keep it, as they do where a step fails
        raise
    post(started(reused))
    decode = _Decode(run, generation, processor, post, stopped, began)
    try:
        decode.go()
    finally:
        unsure = (
            generation.num_draft_tokens + 2
            if generation.num_draft_tokens
            else processor.steps - generation.launched + 1
        )
        generation.remember(prefix_cache, processor.fed[: max(0, len(processor.fed) - unsure)])
    ranked = _rank(decoder, processor, resolved.values | decode.turned, main, ids)
    best = ranked[0] if ranked else None
    post(
        Finished(
            run=run.id,
            reason=processor.reason or "cancelled",
            new_tokens=len(best.tokens) if best else processor.count,
            time_to_first_token=decode.first - began if decode.first else 0.0,
            seconds=decode.last - decode.first if decode.first else 0.0,
            answer=best.tokens if best else None,
            answer_text=best.text if best else None,
            score=best.score if best else None,
            peak_bytes=memory_of(device).peak,
            tail=processor.tail,
            reasons=processor.reasons,
            tails=processor.tails,
            ranked=ranked,
        )
    )


def _check_rows(generation: Generation, loaded: Mapping[str, LoadedModel], samples: int) -> None:
    """Refuses a run that a model cannot hold apart or take back.

    Raises:
        RequestError: a model of one row is to decode several or two streams, or one to forget that cannot.
    """
    decoder = generation.decoder
    for role, model in loaded.items():
        if generation.num_draft_tokens and not model.model.caps.rewind:
            raise RequestError(
                f"{decoder.title} takes rejected proposals back, but {model.model.info.name} keeps a running "
                "state, which cannot be rewound: choose another strategy or another model.",
                role,
            )
        streams = sum(loaded[stream.role].model is model.model for stream in decoder.streams)
        if model.model.caps.fork or (generation.rows == 1 and streams == 1):
            continue
        what = f"{generation.rows} rows side by side" if generation.rows > 1 else f"{streams} texts at once"
        raise RequestError(
            f"{decoder.title} decodes {what}, but {model.model.info.name} can hold one only: "
            "choose a strategy of one row and one sample, or another model.",
            "samples" if samples > 1 else "strategy",
        )


class _Decode:
    """The loop: launch ahead, read behind."""

    def __init__(
        self,
        run: Run,
        generation: Generation,
        processor: OutputProcessor,
        post: Callable[[Event], None],
        stopped: Callable[[], bool],
        began: float,
    ) -> None:
        self._run, self._generation, self._processor = run, generation, processor
        self._post, self._stopped, self._began = post, stopped, began
        self._gate: SpeculationGate | None = None
        self._resting = False
        self._flushed = 0.0
        self._version = 0
        self.first = 0.0
        self.last = 0.0

    def go(self) -> None:
        """Runs until the text ends; on the way out everything certain has been posted."""
        generation, processor = self._generation, self._processor
        reason: FinishReason = "length"
        try:
            while processor.reason is None:
                if self._stopped():
                    reason = "cancelled"
                    break
                if generation.launched < generation.max_new:
                    generation.launch()
                    if generation.trouble:
                        self._tell(generation.take_trouble())
                    if generation.num_draft_tokens and generation.launched == _WARM:
                        self._gate = SpeculationGate(*generation.costs())
                elif generation.ring.empty:
                    break
                self._read(wait=generation.ring.full or generation.launched >= generation.max_new)
        except NotANumber as error:
            self._post(
                Failed(
                    f"The model's numbers broke at token {error.index} (NaN or infinite logits):"
                    " try float32 or bfloat16, or check the checkpoint.",
                    self._run.id,
                    code="not_a_number",
                )
            )
            reason = "cancelled"
        except BrokenStep as error:
            reason = "cancelled"
            raise generation.runner.diagnose(error.index, error.is_astray) from None
        finally:
            processor.end(reason)
            self._hand_over()
            if (gate := self._gate) is not None and gate.proposed and not self._resting:
                self._say(f"{gate.acceptance:.0%} of {gate.proposed} proposed tokens were accepted.")

    def _read(self, wait: bool) -> None:
        for ints, floats in self._generation.ring.read(wait):
            tokens = self._processor.take(ints, floats)
            now = time.perf_counter()
            if self._generation.num_draft_tokens:
                self._judge(len(ints) - 1, tokens)
            if not self.first:
                self.first = now
                self._flush()
                self._post(FirstToken(self._run.id, now - self._began))
            self.last = now
            if (version := int(ints[0, 4])) != self._version:
                self._note_change(version)
        if self.last - self._flushed >= _FLUSH:
            self._flush()

    def _tell(self, trouble: str) -> None:
        name = self._generation.decoder.title
        self._say(f"{name} runs uncaptured, and so slower: {trouble}.")

    def _say(self, sentence: str) -> None:
        self._post(Noticed(self._run.id, sentence))

    def _judge(self, proposed: int, tokens: int) -> None:
        """Gives up proposing where it loses."""
        self._generation.judged += 1
        if self._gate is None or not proposed:
            return
        gain = self._gate.update(proposed, tokens)
        if gain is not None and not self._resting:
            self._resting = True
            self._generation.stop_proposing()
            self._say(
                f"Speculation is off for the rest of this run: {self._gate.acceptance:.0%} of the proposals "
                f"were accepted, which is {gain:.2f} times the speed without them."
            )

    @property
    def turned(self) -> dict[str, float]:
        """Parameters that were changed while it went on, as the last token was chosen."""
        return self._generation.table.changes_between(0, self._version)

    def _note_change(self, version: int) -> None:
        table = self._generation.table
        index = self._generation.start + self._processor.steps - 1
        for name, value in table.changes_between(self._version, version).items():
            self._post(ParamChanged(self._run.id, name, value, version, index))
        self._version = version

    def _flush(self) -> None:
        """What is due some hundred times a second."""
        self._flushed = time.perf_counter()
        if self._run.request.watched:
            self._hand_over()

    def _hand_over(self) -> None:
        """Posts the tokens that have become certain."""
        if (batch := self._processor.batch()) is not None:
            self._post(batch)


def _rank(
    decoder: Decoder, processor: OutputProcessor, values: dict[str, float], main: LoadedModel, ids: list[int]
) -> tuple[Ranked, ...]:
    """The finished sequences that a strategy chooses among, best first, after a prompt of these ids."""
    history = processor.history
    if not history.tokens:
        return ()
    records = Records(history.tokens, history.parents, history.extras, values)
    choices = checks.ranked(decoder, records, len(history.tokens[-1]), main.tokenizer.size)
    return tuple(
        Ranked(choice.tokens, main.tokenizer.answer(ids, choice.tokens), choice.score) for choice in choices
    )


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
