"""Checks a request against its strategy and models, and plans its run before the first forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING

from edge_tui import __version__
from edge_tui.decoders.base import Needs, names_of
from edge_tui.decoders.core import step_checks
from edge_tui.decoders.core.chain import learns
from edge_tui.decoders.core.errors import fault
from edge_tui.decoders.registry.declarations import check_shape, stages_of
from edge_tui.engine.decode.layer_needs import resolve_needs
from edge_tui.engine.decode.prompt import OtherPrompts, Prompt, read_prompt
from edge_tui.engine.decode.resolve import ResolvedParams, check_ids, clamp_max_length, resolve_params
from edge_tui.engine.events import Started
from edge_tui.engine.models.cpu_threads import threads_in_use
from edge_tui.engine.token_fields import RESERVED
from edge_tui.errors import RequestError
from edge_tui.machine.devices import product_name

if TYPE_CHECKING:
    from edge_tui.decoders.base import Decoder, Stage, Text
    from edge_tui.engine.models.loader import LoadedModel
    from edge_tui.engine.port import Request


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Holds the facts of one run that do not change while it goes on.

    Attributes:
        request: The request, with the parameters that were changed before it began.
        decoder: Its strategy.
        models: Model by role.
        prompt: The prompt as ids.
        params: The starting parameters and the seed.
        rows: Rows decoded side by side, those of all samples.
        num_draft_tokens: Tokens proposed in each step; 0 for most strategies.
        max_new: Bound of new tokens, clamped to the context.
        width: Vocabulary `V` that every stream is cut to.
        notices: Sentences the user should read.
        needs: Layers of the main model that are read, counted from 0.
        other_ids: The ids of streams that read another prompt, by their names.
    """

    request: Request
    decoder: Decoder
    models: Mapping[str, LoadedModel]
    prompt: Prompt
    params: ResolvedParams
    rows: int
    num_draft_tokens: int
    max_new: int
    width: int
    notices: tuple[str, ...]
    needs: Needs = field(default_factory=Needs)
    other_ids: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def main(self) -> LoadedModel:
        """The model that writes the text."""
        return self.models[self.decoder.roles[0]]

    @property
    def steps(self) -> int:
        """Bound of steps: those of the new tokens, and those by which a decision lags behind."""
        return self.max_new + self.decoder.lag

    @property
    def ids(self) -> list[int]:
        """Prompt and prefix."""
        return [*self.prompt.ids, *self.request.prefix]

    def prompt_of(self, stream: str) -> Sequence[int]:
        """Returns the ids of the prompt that a stream reads."""
        return self.other_ids.get(stream, self.prompt.ids)

    @property
    def learns_by_decoding(self) -> bool:
        """True where the strategy must decode the kept tokens again: what it learns of them is not known."""
        prefix, logps = self.request.prefix, self.request.prefix_logps
        if not (self.decoder.learns and prefix):
            return False
        return len(logps) != len(prefix) or any(isnan(x) for pair in logps for x in pair)

    def started(self, run: int, reused: int) -> Started:
        """Builds the event that begins a run.

        Args:
            run: Its id.
            reused: Positions of the prompt whose keys and values were still there.
        """
        info = self.main.model.info
        return Started(
            run=run,
            strategy=self.decoder.name,
            rows=self.rows,
            columns=names_of(self.decoder.all_columns),
            column_details=self.decoder.all_columns,
            prompt_tokens=len(self.prompt.ids),
            prefix_tokens=len(self.request.prefix),
            reused_tokens=reused,
            max_new_tokens=self.max_new,
            seed=self.params.seed,
            values=self.params.resolved,
            notices=self.notices,
            thinking=self.prompt.thinking,
            control_tokens=self.prompt.control_tokens,
            end_ids=self.main.tokenizer.end_ids,
            kept_texts=self.main.tokenizer.texts(self.prompt.ids, self.request.prefix),
            model=info.name,
            version=__version__,
            device_name=product_name(info.device),
            kernels=self.main.model.caps.kernels,
            threads=threads_in_use() if info.device == "cpu" else 0,
        )


def check_samples(decoder: Decoder, samples: int) -> None:
    """Refuses a number of samples that a strategy cannot decode.

    Raises:
        RequestError: it is below 1, or above 1 for a strategy whose rows serve one answer.
    """
    if samples >= 1 and (samples == 1 or decoder.kind == "sample"):
        return
    raise RequestError(
        f"samples is {samples}, but must be at least 1."
        if decoder.kind == "sample"
        else f"samples is {samples}, but must be 1 for {decoder.title}: its rows serve one answer.",
        "samples",
    )


def plan_run(
    request: Request, decoder: Decoder, models: Mapping[str, LoadedModel], stopped: Callable[[], bool]
) -> RunPlan:
    """Checks a request and reads its prompt into ids; no model computes anything.

    Raises:
        RequestError, StrategyError, ChatError: one sentence.
        Cancelled: `stopped()` said so while the chat template was rendered.
    """
    main = models[decoder.roles[0]]
    decoder = decoder.with_settings(main.checkpoint.generation_config)
    width = min(main.tokenizer.size, *(model.model.info.vocab for model in models.values()))
    check_ids(request.ids, width, "ids")
    _check_prefix(request, main, width)
    prompt = read_prompt(request, main, stopped)
    own_values = step_checks.from_checkpoint(decoder, main.checkpoint.generation_config)
    params = resolve_params(request, decoder, own_values)
    others = _other_ids(decoder, OtherPrompts(prompt.ids, request, main, stopped), params.texts)
    for ids in (prompt.ids, *others.values()):
        _check_rows(ids, main, width)
    longest = max(len(prompt.ids), *map(len, others.values()), 0)
    max_new, clamped = clamp_max_length(
        longest,
        len(request.prefix),
        request.max_length,
        min(model.context for model in models.values()),
        least=0 if request.prompt_logps else 1,
    )
    _check_columns(decoder)
    rows, num_draft_tokens = decoder.rows(params.values), decoder.num_draft_tokens(params.values)
    check_shape(decoder, rows, num_draft_tokens)
    if num_draft_tokens:
        _check_speculation(decoder)
    rows *= request.samples
    _check_models(decoder, models, rows, num_draft_tokens, request.samples)
    needs = resolve_needs(decoder, params.values, main.model)
    total = longest + len(request.prefix) + max_new
    notices = [*prompt.notices, clamped]
    if request.stop and decoder.kind == "search":
        notices.append("Stop strings do not end a beam search; they are ignored here.")
    notices += dict.fromkeys(model.model.notice(total) for model in models.values())
    notices += decoder.ignored_settings(main.checkpoint.generation_config)
    notices += dict.fromkeys(_apart(decoder, models)) if not num_draft_tokens else ()
    return RunPlan(
        request,
        decoder,
        models,
        prompt,
        params,
        rows,
        num_draft_tokens,
        max_new,
        width,
        tuple(filter(None, notices)),
        needs,
        others,
    )


def _check_columns(decoder: Decoder) -> None:
    """Refuses a column that would stand in the place of a token's own number.

    Raises:
        StrategyError: its class is at fault.
    """
    if RESERVED.isdisjoint(names_of(decoder.all_columns)):
        return
    owners: list[Decoder | Stage] = [decoder, *stages_of(decoder)]
    for owner in owners:
        for name in names_of(owner.columns):
            if name in RESERVED:
                does = f"records a number named {name}, as every token does; give it another name."
                raise fault(type(owner), does)


def _other_ids(decoder: Decoder, prompt: OtherPrompts, texts: Mapping[str, Text]) -> dict[str, Sequence[int]]:
    """Lists the ids of streams that read another prompt than the user's.

    Raises:
        StrategyError: a stream reads a prompt that the strategy does not make.
    """
    names = {stream.prompt for stream in decoder.streams if stream.prompt}
    others = decoder.prompts(prompt, texts) if names else {}
    if missing := sorted(names - others.keys()):
        raise fault(decoder.prompts, f"makes no {missing[0]!r}, which a stream reads.")
    return {stream.name: others[stream.prompt].ids for stream in decoder.streams if stream.prompt}


def _apart(decoder: Decoder, models: Mapping[str, LoadedModel]) -> Iterator[str]:
    """Tells which models read several streams one after another, because they take one row at a time."""
    for role in decoder.roles:
        model = models[role].model
        count = sum(models[stream.role].model is model for stream in decoder.streams)
        if count > 1 and model.caps.unequal_rows == 1:
            yield (
                f"A step of {decoder.title} reads {model.info.name} {count} times, a forward for each text:"
                " rows of one forward have one length in its tier."
            )


def _check_speculation(decoder: Decoder) -> None:
    """Refuses stages whose numbers depend on the tokens before, around a strategy that proposes several.

    Raises:
        RequestError: it names the stage.
    """
    for link in decoder.links_around:
        needs = link.stage.needs
        if learns(link.stage) or needs.counts or needs.history or link.stage.columns:
            raise RequestError(
                f"{decoder.title} checks several tokens at once, but {link.name} needs those before each:"
                f" leave {link.name} out of the chain.",
                "strategy",
            )


def _check_rows(ids: Sequence[int], main: LoadedModel, width: int) -> None:
    """Refuses tokens of a prompt that the tokenizer knows and a model has no row for; a GPU would fault."""
    if (most := max(ids, default=0)) >= width:
        raise RequestError(
            f"The prompt has the token {main.tokenizer.token_strings([most])[0]!r} (id {most}), but"
            f" {main.model.info.name} has {width} tokens: leave it out, or take the model's own tokenizer.",
            "prompt",
        )


def _check_prefix(request: Request, main: LoadedModel, width: int) -> None:
    """Refuses a prefix with ids that there are not, or with one that ends an answer."""
    prefix, logps = request.prefix, request.prefix_logps
    check_ids(prefix, width, "prefix")
    if logps and len(logps) != len(prefix):
        raise RequestError(
            f"prefix_logps has {len(logps)} entries, but the prefix {len(prefix)} tokens: send one for each,"
            " or none.",
            "prefix_logps",
        )
    if end_ids := [token for token in prefix if token in main.tokenizer.end_ids]:
        raise RequestError(
            f"The kept tokens hold {main.tokenizer.token_strings(end_ids)[0]!r}, which ends an answer:"
            " keep only what comes before it.",
            "prefix",
        )


def _check_models(
    decoder: Decoder, models: Mapping[str, LoadedModel], rows: int, num_draft_tokens: int, samples: int
) -> None:
    """Refuses a run that a model cannot hold apart or take back.

    Raises:
        RequestError: a model of one row is to decode several or two streams, or one to forget that cannot.
    """
    for role, loaded in models.items():
        model = loaded.model
        if num_draft_tokens and not model.caps.rewind:
            raise RequestError(
                f"{decoder.title} takes rejected proposals back, but {model.info.name} keeps a running "
                "state, which cannot be rewound: choose another strategy or another model.",
                role,
            )
        streams = sum(models[stream.role].model is model for stream in decoder.streams)
        if model.caps.fork or (rows == 1 and streams == 1):
            continue
        what = f"{rows} rows side by side" if rows > 1 else f"{streams} texts at once"
        raise RequestError(
            f"{decoder.title} decodes {what}, but {model.info.name} can hold one only: "
            "choose a strategy of one row and one sample, or another model.",
            "samples" if samples > 1 else "strategy",
        )
