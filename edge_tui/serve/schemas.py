"""Defines the bodies of requests. Unknown fields are refused, because ignoring them would look like use.

A null counts as absent in every object (`StrictModel`), so that a client may send all the fields it knows.
`edge_tui.serve.request_builder` checks the limits that depend on the server's options.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    StrictInt,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from edge_tui.decoders.logit_bias import LIMIT
from edge_tui.engine.port import Message, Mode, Precision
from edge_tui.engine.token_fields import TOP

MAX_STOPS = 16
MAX_CANDIDATES = 1000
MAX_OTHERS = 32
MAX_ENCODED = 1000


class StrictModel(BaseModel):
    """Validates an object: unknown fields are refused, and a null is the same as no field."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if item is not None}


def _as_list(value: Any) -> Any:
    """Wraps a single stop string into a list."""
    return [value] if isinstance(value, str) else value


def _refuse_bool(value: Any) -> Any:
    """Refuses true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "Input should be a number, not true or false")
    return value


class Unsupported:
    """Marks a field that cannot be honoured and refuses every value that would change the answer.

    Args:
        reason: The sentence: why, and what to do.
        *empty: Values without an effect, besides null, false, "", [] and {}.
    """

    def __init__(self, reason: str, *empty: object) -> None:
        self.reason = reason
        self._empty = empty

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {"description": f"Not supported: {self.reason}."}

    def _check(self, value: object) -> object:
        if value and value not in self._empty:
            raise PydanticCustomError("unsupported", "{reason}", {"reason": self.reason})
        return value


Hint = Annotated[Any, WithJsonSchema({"description": "A hint that changes no answer here; it is ignored."})]
TokenId = Annotated[StrictInt, Field(ge=0, le=2**31 - 1)]
# Only the first error is reported; to collect a million would take seconds.
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=MAX_STOPS, fail_fast=True),
    BeforeValidator(_as_list),
]
Seed = Annotated[
    int,
    Field(ge=-1, le=2**63 - 1, description="Makes the answer repeatable; −1 draws one."),
    BeforeValidator(_refuse_bool),
]
NonNegativeInt = Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(_refuse_bool)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_refuse_bool)]
StrategyName = Annotated[str, Field(max_length=2_000)]
ParameterValue = float | str | StrictBool | tuple[str, ...]
Parameters = Annotated[dict[str, ParameterValue], BeforeValidator(_without_nulls)]
Bias = Annotated[float, Field(ge=-LIMIT, le=LIMIT, allow_inf_nan=False), BeforeValidator(_refuse_bool)]
LogitBias = dict[Annotated[int, Field(ge=0, le=2**31 - 1)], Bias]
TemplateVariables = Annotated[
    dict[str, Any],
    Field(default_factory=dict, description="Variables of the chat template, such as enable_thinking."),
]
ControlTokens = Annotated[
    StrictBool | None,
    Field(description="A control token's name in the prompt is that token, not text; null: as served."),
]
_Tools = Annotated[Any, Unsupported("no tools are called here; leave it out")]


class TextPart(StrictModel):
    """Holds a piece of a turn; only text is supported."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Hint = None


class Turn(StrictModel):
    """Holds one turn of a conversation. Answers of OpenAI's kind may be sent back as they came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    name: Hint = None
    annotations: Hint = None
    reasoning: Hint = None
    reasoning_content: Hint = None
    refusal: Annotated[Any, Unsupported("a refusal is no text of the conversation; send it as content")] = (
        None
    )
    tool_calls: _Tools = None
    function_call: _Tools = None
    audio: Annotated[Any, Unsupported("only text is understood; leave it out")] = None

    @model_validator(mode="after")
    def _needs_content(self) -> Turn:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("missing", "A turn needs a field content with its text")
        return self

    def message(self) -> Message:
        """Returns the turn as the engine takes it."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text)


Turns = Annotated[list[Turn], Field(fail_fast=True)]


class Generation(StrictModel):
    """Describes a generation. `prompt` alone is enough."""

    prompt: str | TokenIds | Turns = Field(description="Text, token ids, or turns of a conversation.")
    max_length: NonNegativeInt | None = Field(None, description="Most new tokens; 100 without.")
    strategy: StrategyName | None = Field(
        None, description="Strategy that chooses tokens; the server's own without."
    )
    params: Parameters = Field(default_factory=dict, description="The strategy's parameters.")
    mode: Mode | None = Field(None, description="exploratory and focused set the temperature.")
    seed: Seed | None = None
    stop: Stop | None = Field(None, description="Texts that end the answer; not part of it.")
    n: NonNegativeInt = Field(1, description="Answers, decoded as one batch.")
    chat: bool | None = Field(
        None,
        description="Use the model's chat template; null: if it has one and the prompt is not token ids.",
    )
    system: str | None = Field(None, description="System prompt for the chat template.")
    chat_template_kwargs: TemplateVariables
    control_tokens: ControlTokens = None
    prefix: list[TokenId] = Field(
        default_factory=list, fail_fast=True, description="Ids the answer is to begin with."
    )
    prefix_logps: list[tuple[float | None, float | None]] = Field(
        default_factory=list,
        fail_fast=True,
        description="Log-probability of each of these under the model, and in the distribution that it was"
        " taken from; null where not known. A strategy that learns decodes them again without.",
    )
    prefix_values: list[tuple[NonNegativeInt, dict[str, float | str]]] = Field(
        default_factory=list,
        fail_fast=True,
        description="Parameters that the prefix was taken under where they were others: [from which of its"
        " tokens on, values].",
    )
    proposing_ends: Annotated[int, Field(ge=-1)] | None = Field(
        None,
        description="The step from which on a speculative strategy proposes nothing, as `proposing_ended` of"
        " an earlier run tells it; -1 proposes to the end. Without it that depends on time.",
    )


class Infer(Generation):
    """Requests a generation."""

    details: bool = Field(False, description="Add seed, counts, speed and finish reasons.")
    explain: StrictBool | Literal["last"] | list[TokenId] = Field(
        False,
        description='Add why tokens were taken: true for each new one, "last" for each answer\'s last, or'
        " a list of their numbers.",
    )


class InferStream(Infer):
    """Requests a generation whose tokens are sent as they come."""

    prompt_logps: bool = Field(
        False,
        description="Send first, as `prompt`, the prompt's own tokens with what the model thinks of them, and"
        " the likeliest after them; max_length may then be 0.",
    )
    alternatives: int = Field(5, ge=0, le=TOP, description="Alternatives sent with each token.")
    format: Literal["tokens", "columns"] = Field(
        "tokens", description="One event a token, or all that is known in columns, many tokens an event."
    )


class Explain(Generation):
    """Asks why a token was taken: the fields of its run, with its seed, and the token behind the prefix."""

    n: Literal[1] = Field(1, description="A sample is the run of its own seed: seed + its number.")
    token: TokenId = Field(description="The id that was taken.")
    candidates: list[TokenId] = Field(
        default_factory=list,
        max_length=MAX_CANDIDATES,
        fail_fast=True,
        description="Ids to tell of beside the likeliest and those with the best sums.",
    )
    others: list[StrategyName] = Field(
        default_factory=list,
        max_length=MAX_OTHERS,
        description="Strategies to ask what they would have taken; a few well-known ones without.",
    )
    margin: FiniteFloat | None = Field(None, description="The margin that was recorded with the token.")
    recorded: dict[str, float | None] = Field(
        default_factory=dict, description="The strategy's own numbers that were recorded with the token."
    )
    model: str = Field("", description="The model that the run was of; another one is refused.")


class Encode(StrictModel):
    """Asks for the tokens of a text."""

    text: str = Field(
        min_length=1,
        max_length=MAX_ENCODED,
        description="Read as it stands within an answer; a control token's name alone is that token.",
    )


class StreamOptions(StrictModel):
    """Holds OpenAI's options of a stream."""

    include_usage: bool = False
    include_obfuscation: Hint = None
    continuous_usage_stats: Hint = None


class OpenAiRequest(StrictModel):
    """Holds the fields of both of OpenAI's requests, and `strategy`, `params` and `control_tokens`."""

    model: str | None = None
    temperature: FiniteFloat | None = None
    top_p: FiniteFloat | None = None
    presence_penalty: FiniteFloat | None = None
    frequency_penalty: FiniteFloat | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    n: NonNegativeInt = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias | None = Field(None, description="Added to the logits of tokens, by their ids.")
    user: Hint = None
    metadata: Hint = None
    store: Hint = None
    service_tier: Hint = None
    safety_identifier: Hint = None
    prompt_cache_key: Hint = None
    prompt_cache_options: Hint = None
    prompt_cache_retention: Hint = None
    control_tokens: ControlTokens = None
    strategy: StrategyName | None = Field(None, description="Strategy that chooses tokens.")
    params: Parameters = Field(default_factory=dict, description="The strategy's parameters.")


class Completion(OpenAiRequest):
    """Requests completions, as OpenAI defines them."""

    prompt: str | TokenIds | Texts | Annotated[list[TokenIds], Field(fail_fast=True)]
    max_tokens: NonNegativeInt | None = Field(None, description="Most new tokens; 16 without.")
    echo: bool = False
    logprobs: Annotated[NonNegativeInt, Field(le=TOP)] | None = None
    best_of: NonNegativeInt | None = None
    suffix: Annotated[Any, Unsupported("texts are continued at their end alone; leave it out")] = None


class Chat(OpenAiRequest):
    """Requests a turn of a conversation, as OpenAI defines it."""

    messages: list[Turn] = Field(min_length=1, fail_fast=True)
    chat_template_kwargs: TemplateVariables
    max_tokens: NonNegativeInt | None = None
    max_completion_tokens: NonNegativeInt | None = None
    logprobs: bool = False
    top_logprobs: Annotated[NonNegativeInt, Field(le=TOP)] | None = None
    response_format: Annotated[
        Any,
        Unsupported(
            "nothing here constrains what is decoded; leave it out and ask for the format in the prompt",
            {"type": "text"},
        ),
    ] = None
    tools: _Tools = None
    tool_choice: Annotated[Any, Unsupported("no tools are called here; leave it out", "none", "auto")] = None
    functions: _Tools = None
    function_call: Annotated[
        Any, Unsupported("no functions are called here; leave it out", "none", "auto")
    ] = None
    modalities: Annotated[Any, Unsupported("only text can be answered; leave it out", ["text"])] = None
    audio: Annotated[Any, Unsupported("only text can be answered; leave it out")] = None
    reasoning_effort: Annotated[
        Any, Unsupported("how long a model thinks cannot be set here; leave it out")
    ] = None
    web_search_options: Annotated[Any, Unsupported("nothing is searched here; leave it out")] = None
    moderation: Annotated[Any, Unsupported("nothing is moderated here; leave it out")] = None
    parallel_tool_calls: Hint = None
    prediction: Hint = None
    verbosity: Hint = None


class SetParameter(StrictModel):
    """Sets a live parameter of a generation in progress."""

    name: str
    value: ParameterValue


Role = Literal["model", "expert", "amateur", "draft"]


class Unload(StrictModel):
    """Names the role whose model is unloaded."""

    role: Role = "model"


class Load(Unload):
    """Names the model for a role."""

    name: str | None = Field(None, description="A name of the list of models; null loads what is assigned.")
    precision: Precision | None = None
