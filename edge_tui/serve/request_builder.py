"""Builds the engine's requests from clients' fields: defaults, names and limits, before anything waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.base import Value
from edge_tui.decoders.beam import NUM_BEAMS
from edge_tui.decoders.core.declaration import OPENAI_PARAMS
from edge_tui.decoders.logit_bias import LogitBias
from edge_tui.decoders.registry.chain_text import AROUND, LINKS
from edge_tui.engine import seeds
from edge_tui.engine.decode.resolve import resolve_params
from edge_tui.engine.port import MODE_TEMPERATURE, Message, Mode, Request
from edge_tui.engine.text.template_variables import check_all
from edge_tui.errors import RequestError
from edge_tui.serve.errors import ApiError

if TYPE_CHECKING:
    from edge_tui.config.settings import Settings
    from edge_tui.decoders.base import Decoder
    from edge_tui.serve.options import Options
    from edge_tui.serve.schemas import Generation, OpenAiRequest

DEFAULT_TOKENS = 100
"""New tokens of `/infer` where neither a request nor the operator names a number."""
Prompt = str | Sequence[int] | Sequence[Message]
OpenAiParams = Mapping[str, float]
"""OpenAI's sampling parameters that the client has set."""


class RequestBuilder:
    """Builds engine requests from a client's fields, the server's settings and its limits.

    Args:
        settings: Defaults of every field that a client leaves out.
        options: Limits.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self.settings = settings
        self._options = options

    def max_new_tokens(self, requested: int | None, api_default: int | None = None) -> int:
        """Returns the number of new tokens.

        Args:
            requested: The client's.
            api_default: The number that its API means by none; the operator's setting comes first.
        """
        if requested is not None:
            return requested
        if api_default is None or self.settings.source("max_length") != "default":
            api_default = self.settings.max_length
        return min(api_default, self._options.tokens)

    def generation(self, body: Generation, prompt_logps: bool = False) -> Request:
        """Builds the request of `/infer` or `/explain`.

        Args:
            body: The client's fields.
            prompt_logps: Also judges the prompt's tokens.

        Raises:
            ApiError: as `build`.
        """
        prompt = body.prompt
        turns = [turn.message() for turn in prompt if not isinstance(turn, int | str)]
        ids = [token for token in prompt if isinstance(token, int)]
        return self.build(
            body,
            prompt if isinstance(prompt, str) else turns or ids,
            max_length=self.max_new_tokens(body.max_length, DEFAULT_TOKENS),
            length_key="max_length",
            chat=self.settings.chat if body.chat is None else body.chat,
            prompt_logps=prompt_logps,
        )

    def build(
        self,
        body: Generation | OpenAiRequest,
        prompt: Prompt,
        *,
        max_length: int,
        length_key: str = "max_tokens",
        chat: bool | None,
        prompt_logps: bool = False,
        logprobs: bool = False,
    ) -> Request:
        """Builds one request and checks it as far as that needs no model.

        Args:
            body: The client's fields; those that its kind of request lacks take the server's default.
            prompt: One of its prompts.
            max_length: Most new tokens.
            length_key: The client's name of that field.
            chat: True or False: with or without the chat template; None: with it, if the model has one.
            prompt_logps: Also judges the prompt's tokens.
            logprobs: True if the client wants log-probabilities.

        Raises:
            ApiError: something in it is out of range, unknown, or unused.
        """
        fields = {name: value for name, value in body if value is not None}
        openai_params = {name: fields[name] for name in OPENAI_PARAMS if name in fields}
        decoder = self.decoder(body.strategy, openai_params)
        explicit = body.strategy is not None or not openai_params
        values, sources = self._values(decoder, body.params, openai_params, explicit)
        self._check_limits(max_length, 0 if prompt_logps else 1, length_key, body.n)
        is_search = decoder.kind == "search"
        if is_search:
            _refuse_for_search(decoder, body.stop, logprobs)
            _widen_search(decoder, values, sources, body.n)
        text, ids = _split_prompt(prompt)
        mode = self._mode(fields.get("mode"), decoder, values, sources)
        if biases := fields.get("logit_bias"):
            decoder = _with_bias(decoder, biases, values, sources)
        request = Request(
            prompt=text,
            strategy=decoder.name,
            mode=mode,
            values=values,
            sources=sources,
            seed=self._seed(body.seed, prompt),
            max_length=max_length,
            stop=tuple(fields.get("stop", () if is_search else self.settings.stop)),
            chat=chat,
            system=fields.get("system", self._system(prompt, chat)),
            template=self._template(fields.get("chat_template_kwargs", {})),
            control_tokens=fields.get("control_tokens", self.settings.control_tokens),
            **_kept_tokens(fields),
            samples=1 if is_search else body.n,
            ids=ids,
            prompt_logps=prompt_logps,
        )
        self._check_rows(decoder, request)
        return request

    def decoder(self, strategy: str | None, openai_params: OpenAiParams, field: str = "strategy") -> Decoder:
        """Returns the strategy of a field.

        A client that sends only OpenAI's parameters means OpenAI's sampling (temperature, then the nucleus);
        one that sends nothing gets the server's own strategy.

        Raises:
            ApiError: the name is unknown.
        """
        if strategy is None:
            if openai_params.get("temperature") == 0 and openai_params.get("top_p") in (None, 1):
                strategy = "greedy"
            elif openai_params:
                strategy = "top_p"
            else:
                strategy = self.settings.strategy
        try:
            return decoders.find(strategy)
        except decoders.UnknownStrategy as error:
            raise ApiError(422, str(error), field, "unknown_strategy") from error

    def _values(
        self, decoder: Decoder, params: Mapping[str, Value], openai_params: OpenAiParams, explicit: bool
    ) -> tuple[dict[str, Value], dict[str, str]]:
        """Merges a strategy's parameters; returns them and the source of each.

        Args:
            decoder: The strategy.
            params: The client's, by name; they win.
            openai_params: One that the strategy does not have is refused unless it does nothing.
            explicit: True if the client or the operator chose the strategy; else the nucleus is OpenAI's,
                which keeps all, unless the operator has set another.

        Raises:
            ApiError: a parameter would not be used.
        """
        names = {param.name for param in decoder.params}
        values: dict[str, Value] = {} if explicit or "top_p" not in names else {"top_p": 1.0}
        claims = self.settings.parameter_claims(decoder.name)
        values |= {name: claim.value for name, claim in claims.items()}
        sources = {name: claim.source for name, claim in claims.items()}
        for name, value in openai_params.items():
            if name in names:
                values[name], sources[name] = value, "request"
            elif value != OPENAI_PARAMS[name] and not (
                decoder.takes_argmax and (name, value) == ("temperature", 0)
            ):
                raise ApiError(
                    422,
                    f"{decoder.title} has no {name}: leave it out, or choose a strategy that has it.",
                    name,
                    "unused_parameter",
                )
        values |= params
        sources |= dict.fromkeys(params, "request")
        return values, sources

    def _mode(
        self, mode: Mode | None, decoder: Decoder, values: dict[str, Value], sources: dict[str, str]
    ) -> Mode:
        """Returns the mode; one that sets the temperature replaces the value and its source."""
        origin = "request" if mode is not None else self.settings.source("mode")
        if mode is None:  # an operator's mode does not replace a client's own temperature
            own = sources.get("temperature") == "request"
            mode = "custom" if own else self.settings.mode_for(decoder.name)
        if mode in MODE_TEMPERATURE:
            values.pop("temperature", None)
            sources["temperature"] = f"mode {mode}, {origin}"
        return mode

    def _seed(self, seed: int | None, prompt: Prompt) -> int | None:
        """Returns the client's seed, or one derived from the server's and the conversation's turns."""
        if seed is not None or self.settings.seed is None:
            return seed
        turns = prompt if isinstance(prompt, str) else [each for each in prompt if isinstance(each, Message)]
        return seeds.of_prompt(self.settings.seed, turns)

    def _template(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Merges the client's variables of the chat template over the server's.

        Raises:
            ApiError: one cannot be used.
        """
        try:
            return check_all({**self.settings.template, **variables})
        except ValueError as error:
            raise ApiError(422, str(error), "chat_template_kwargs", "invalid_value") from error

    def _system(self, prompt: Prompt, chat: bool | None) -> str:
        """Returns the operator's system prompt; "" for a prompt without a chat template or with its own."""
        if chat is False or not (isinstance(prompt, str) or isinstance(prompt[0], Message)):
            return ""
        own = any(isinstance(turn, Message) and turn.role == "system" for turn in prompt)
        return "" if own else self.settings.system

    def _check_limits(self, tokens: int, least: int, length_key: str, n: int) -> None:
        if tokens < least:
            raise ApiError(
                422, f"{length_key} is {tokens}, but must be at least {least}.", length_key, "invalid_value"
            )
        if tokens > self._options.tokens:
            raise ApiError(
                422,
                f"{tokens} new tokens were asked for, but this server gives at most {self._options.tokens}.",
                length_key,
                "too_many_tokens",
            )
        if not 1 <= n <= self._options.rows:
            raise ApiError(422, f"n is {n}, but must be from 1 to {self._options.rows}.", "n")

    def _check_rows(self, decoder: Decoder, request: Request) -> None:
        try:
            rows = decoder.rows(resolve_params(request, decoder, {}).values) * request.samples
        except RequestError as error:
            raise ApiError(422, str(error), error.field or None, "invalid_value") from error
        if rows > self._options.rows:
            raise ApiError(
                422, f"{rows} rows were asked for, but this server decodes at most {self._options.rows}.", "n"
            )


def _kept_tokens(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the tokens that the answer begins with; of their log-probabilities null is one not known."""
    logps: list[tuple[float | None, float | None]] = fields.get("prefix_logps", [])
    return {
        "prefix": tuple(fields.get("prefix", ())),
        "prefix_logps": tuple((nan if a is None else a, nan if b is None else b) for a, b in logps),
        "prefix_values": tuple(fields.get("prefix_values", ())),
        "proposing_ends": fields.get("proposing_ends"),
    }


def _with_bias(
    decoder: Decoder, biases: Mapping[str, float], values: dict[str, Value], sources: dict[str, str]
) -> Decoder:
    """Puts the stage of OpenAI's `logit_bias` around a strategy that has it not, and sets its parameter.

    Raises:
        ApiError: it takes no stage.
    """
    name, stage = decoder.name, LogitBias.name
    values[stage] = tuple(f"#{token}={bias:g}" for token, bias in biases.items())
    sources[stage] = "request"
    if any(param.name == stage for param in decoder.params):
        return decoder
    in_front = LINKS in name and AROUND not in name
    around = f"{name}{LINKS if AROUND in name else AROUND}{stage}"
    try:
        return decoders.find(f"{stage}{LINKS}{name}" if in_front else around)
    except decoders.UnknownStrategy as error:
        raise ApiError(422, str(error), "logit_bias", "unsupported") from error


def _refuse_for_search(decoder: Decoder, stop: Sequence[str] | None, logprobs: bool) -> None:
    if stop:
        raise ApiError(422, f"Stop strings do not end {decoder.title}: leave them out.", "stop")
    if logprobs:
        raise ApiError(
            422, "A search's answers come without logprobs: leave them out.", "logprobs", "unsupported"
        )


def _widen_search(decoder: Decoder, values: dict[str, Value], sources: dict[str, str], n: int) -> None:
    """Sets the number of beams to `n` unless the client has set it.

    Raises:
        ApiError: the client's number of beams is below `n`, or the rows of the search serve one answer.
    """
    if decoder.lag and n > 1:
        raise ApiError(422, f"n is {n}, but {decoder.title} gives one answer: leave n out.", "n")
    if NUM_BEAMS.name not in {param.name for param in decoder.params}:
        return  # of another search its own parameters say how wide it is
    beams = values.get("num_beams")
    if beams is None or sources.get("num_beams") != "request":
        if n > 1:
            values["num_beams"], sources["num_beams"] = n, "request"
    elif isinstance(beams, int | float) and beams < n:
        raise ApiError(422, f"n is {n}, but {NUM_BEAMS.name} is {beams}: a beam gives one answer.", "n")


def _split_prompt(prompt: Prompt) -> tuple[str | tuple[Message, ...], tuple[int, ...]]:
    """Returns a prompt as the engine's two fields: text or turns, and ids.

    Raises:
        ApiError: it is empty.
    """
    if isinstance(prompt, str):
        return prompt, ()
    turns = tuple(turn for turn in prompt if isinstance(turn, Message))
    if turns:
        if not any(turn.content for turn in turns):
            raise ApiError(
                400, "The messages are empty: give at least one character.", "messages", "empty_prompt"
            )
        return turns, ()
    ids = tuple(token for token in prompt if isinstance(token, int))
    if not ids:
        raise ApiError(400, "The prompt is empty: give at least one token.", "prompt", "empty_prompt")
    return "", ids
