"""From what a client sent to what the engine takes: defaults, names and limits, before anything waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.beam import NUM_BEAMS
from edge_tui.decoders.core.declaration import OPENAI_PARAMS
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

Value = float | str


class Asked:
    """Builds engine requests out of clients' wishes.

    Args:
        settings: Defaults of everything that a client leaves out.
        options: Limits.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        self.settings = settings
        self._options = options

    def tokens(self, given: int | None, usual: int | None = None) -> int:
        """New tokens of a request.

        Args:
            given: The number that the request names.
            usual: The number that its API has always meant by none; what the operator has set comes first.
        """
        if given is not None:
            return given
        if usual is None or self.settings.source("max_length") != "default":
            usual = self.settings.max_length
        return min(usual, self._options.tokens)

    def decoder(self, strategy: str | None, standard: Mapping[str, float | None]) -> Decoder:
        """The strategy that is meant.

        A client that sends only OpenAI's numbers means OpenAI's sampling (temperature, then the nucleus); one
        that sends nothing gets what the server was started with.

        Raises:
            ApiError: nobody knows the name.
        """
        if strategy is None:
            if standard.get("temperature") == 0 and standard.get("top_p") in (None, 1):
                strategy = "greedy"
            elif any(value is not None for value in standard.values()):
                strategy = "top_p"
            else:
                strategy = self.settings.strategy
        try:
            return decoders.find(strategy)
        except decoders.UnknownStrategy as error:
            raise ApiError(422, str(error), "strategy", "unknown_strategy") from error

    def values(
        self,
        decoder: Decoder,
        params: Mapping[str, Value],
        standard: Mapping[str, float | None],
        named: bool,
    ) -> tuple[dict[str, Value], dict[str, str]]:
        """A strategy's parameters and where each came from.

        Args:
            decoder: The strategy.
            params: Ours, by name; they win.
            standard: OpenAI's; one that the strategy does not have is refused unless it does nothing.
            named: Whether the client or the operator chose the strategy; else the nucleus is OpenAI's, which
                keeps all, unless the operator has set another.

        Raises:
            ApiError: a parameter that would not be used.
        """
        names = {param.name for param in decoder.params}
        values: dict[str, Value] = {} if named or "top_p" not in names else {"top_p": 1.0}
        values |= self.settings.values(decoder.name)
        sources = self.settings.value_sources(decoder.name)
        for name, value in standard.items():
            if value is None:
                continue
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

    def request(
        self,
        prompt: str | Sequence[int] | Sequence[Message],
        *,
        strategy: str | None = None,
        params: Mapping[str, Value] | None = None,
        standard: Mapping[str, float | None] | None = None,
        tokens: int,
        field: str = "max_tokens",
        n: int = 1,
        seed: int | None = None,
        stop: Sequence[str] | None = None,
        chat: bool | None = False,
        system: str | None = None,
        template: Mapping[str, object] | None = None,
        control_tokens: bool | None = None,
        mode: Mode | None = None,
        prefix: Sequence[int] = (),
        prompt_logps: bool = False,
    ) -> Request:
        """One generation as the engine takes it, checked as far as that needs no model.

        `field` is what the client calls the number of `tokens`; the rest is `edge_tui.engine.port.Request`.
        None takes what the server was started with.

        Raises:
            ApiError: something in it is out of range, unknown, or would not be used.
        """
        standard = standard or {}
        decoder = self.decoder(strategy, standard)
        named = strategy is not None or not any(value is not None for value in standard.values())
        values, sources = self.values(decoder, params or {}, standard, named)
        self._check_limits(tokens, 0 if prompt_logps else 1, field, n)
        search = decoder.kind == "search"
        if search:
            self._widen(values, n, sources)
        text, ids = _prompt(prompt)
        origin = "request" if mode is not None else self.settings.source("mode")
        if mode is None:  # an operator's mode does not turn over a client's own number
            own = sources.get("temperature") == "request"
            mode = "custom" if own else self.settings.mode_for(decoder.name)
        if mode in MODE_TEMPERATURE:
            values.pop("temperature", None)
            sources["temperature"] = f"mode {mode}, {origin}"
        request = Request(
            prompt=text,
            strategy=decoder.name,
            values=values,
            sources=sources,
            mode=mode,
            seed=self._seed(seed, prompt),
            max_length=tokens,
            stop=tuple((() if search else self.settings.stop) if stop is None else stop),
            chat=chat,
            system=self._system(prompt, chat) if system is None else system,
            template=self.template(template or {}),
            control_tokens=self.settings.control_tokens if control_tokens is None else control_tokens,
            prefix=tuple(prefix),
            samples=1 if search else n,
            ids=ids,
            prompt_logps=prompt_logps,
        )
        if search and stop:
            raise ApiError(422, f"Stop strings do not end {decoder.title}: leave them out.", "stop")
        try:
            rows = decoder.rows(resolve_params(request, decoder, {}).values) * request.samples
        except RequestError as error:
            raise ApiError(422, str(error), error.field or None, "invalid_value") from error
        if rows > self._options.rows:
            raise ApiError(
                422, f"{rows} rows were asked for, but this server decodes at most {self._options.rows}.", "n"
            )
        return request

    def _seed(self, asked: int | None, prompt: str | Sequence[int] | Sequence[Message]) -> int | None:
        """The client's seed as it is, or the server's, from which a conversation's turns derive theirs."""
        if asked is not None or self.settings.seed is None:
            return asked
        turns = prompt if isinstance(prompt, str) else [each for each in prompt if isinstance(each, Message)]
        return seeds.of_prompt(self.settings.seed, turns)

    def template(self, wanted: Mapping[str, object]) -> dict[str, object]:
        """The chat template's variables: the client's over those that the server was started with.

        Raises:
            ApiError: one cannot be used.
        """
        try:
            return check_all({**self.settings.template, **wanted})
        except ValueError as error:
            raise ApiError(422, str(error), "chat_template_kwargs", "invalid_value") from error

    def _system(self, prompt: str | Sequence[int] | Sequence[Message], chat: bool | None) -> str:
        """The operator's system prompt, where the client's prompt has a place for it and none of its own."""
        if chat is False or not (isinstance(prompt, str) or isinstance(prompt[0], Message)):
            return ""
        own = any(isinstance(turn, Message) and turn.role == "system" for turn in prompt)
        return "" if own else self.settings.system

    def _check_limits(self, tokens: int, least: int, field: str, n: int) -> None:
        if tokens < least:
            raise ApiError(422, f"{field} is {tokens}, but must be at least {least}.", field, "invalid_value")
        if tokens > self._options.tokens:
            raise ApiError(
                422,
                f"{tokens} new tokens were asked for, but this server gives at most {self._options.tokens}.",
                field,
                "too_many_tokens",
            )
        if not 1 <= n <= self._options.rows:
            raise ApiError(422, f"n is {n}, but must be from 1 to {self._options.rows}.", "n")

    @staticmethod
    def _widen(values: dict[str, Value], n: int, sources: dict[str, str]) -> None:
        """Makes a search wide enough for `n` answers.

        Raises:
            ApiError: the client asked for fewer beams than answers.
        """
        given = values.get("num_beams")
        if given is None or sources.get("num_beams") != "request":
            if n > 1:
                values["num_beams"], sources["num_beams"] = n, "request"
        elif isinstance(given, int | float) and given < n:
            raise ApiError(422, f"n is {n}, but {NUM_BEAMS.name} is {given}: a beam gives one answer.", "n")


def _prompt(
    prompt: str | Sequence[int] | Sequence[Message],
) -> tuple[str | tuple[Message, ...], tuple[int, ...]]:
    """A prompt as the engine's two fields, text or turns, and ids.

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
