"""What requests may hold. Unknown fields are refused: an answer must not look as if they had been used.

Limits that depend on how the server was started are checked in `edge_tui.serve.asked`; those here only keep
a request from being absurd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

import decoders
from edge_tui.engine.port import Message, Mode

if TYPE_CHECKING:
    from decoders.base import Param

MAX_STOPS = 16
TOP = 20
"""Most alternatives of a token."""


def _listed(value: Any) -> Any:
    """One stop string is a list of one; none is an empty list."""
    return [] if value is None else [value] if isinstance(value, str) else value


Token = Annotated[int, Field(ge=0, le=2**31 - 1)]
# One complaint is told; a million of them would take seconds.
Tokens = Annotated[list[Token], Field(min_length=1, fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
Stop = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    Field(max_length=MAX_STOPS, fail_fast=True),
    BeforeValidator(_listed),
]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Whole = Annotated[int, Field(ge=0, le=2**31 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Parameters = dict[str, float | str]
Template = Annotated[
    dict[str, Any],
    Field(default_factory=dict, description="Variables of the chat template, such as enable_thinking."),
]


class Closed(BaseModel):
    """An object without room for anything else."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class TextPart(Closed):
    """A piece of a turn; other kinds than text are not understood."""

    type: Literal["text"]
    text: str


class Turn(Closed):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]
    name: str | None = None

    def message(self) -> Message:
        """As the engine knows it."""
        parts = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, parts)


Turns = Annotated[list[Turn], Field(fail_fast=True)]


class Infer(Closed):
    """A generation. `prompt` alone is enough."""

    prompt: str | Tokens | Turns = Field(description="Text, token ids, or turns of a conversation.")
    max_length: Whole = Field(100, ge=1, description="Most new tokens.")
    strategy: str | None = Field(None, description="How tokens are chosen; the server's own choice without.")
    params: Parameters = Field(default_factory=dict, description="The strategy's parameters.")
    mode: Mode = Field("custom", description="exploratory and focused set the temperature.")
    seed: Seed | None = Field(None, description="Makes the answer repeatable.")
    stop: Stop = Field(default_factory=list, description="Texts that end the answer; not part of it.")
    n: Whole = Field(1, description="Answers, decoded as one batch.")
    chat: bool | None = Field(
        None,
        description="Use the model's chat template; null: if it has one and the prompt is not token ids.",
    )
    system: str = Field("", description="System prompt for the chat template.")
    chat_template_kwargs: Template
    prefix: list[Token] = Field(
        default_factory=list, fail_fast=True, description="Ids the answer is to begin with."
    )
    details: bool = Field(False, description="Tell more than the output: seed, counts, speed, reasons.")


class InferStream(Infer):
    """A generation whose tokens are told as they come."""

    alternatives: int = Field(5, ge=0, le=TOP, description="Alternatives told with each token.")
    format: Literal["tokens", "columns"] = Field(
        "tokens", description="One event a token, or all that is known in columns, many tokens an event."
    )


class StreamOptions(Closed):
    """OpenAI's options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False


class OpenAi(Closed):
    """What both of OpenAI's requests share, ours beside it.

    Fields that change nothing here are taken and ignored: `user`, `metadata`, `store`, `service_tier`.
    """

    model: str | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    seed: Seed | None = None
    stop: Stop = Field(default_factory=list)
    n: Whole = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    strategy: str | None = Field(None, description="How tokens are chosen.")
    params: Parameters = Field(default_factory=dict, description="The strategy's parameters.")

    def standard(self) -> dict[str, float | None]:
        """OpenAI's sampling numbers."""
        names = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
        return {name: getattr(self, name) for name in names}


class Completion(OpenAi):
    """OpenAI's request for completions."""

    prompt: str | Tokens | Texts | Annotated[list[Tokens], Field(fail_fast=True)]
    max_tokens: Whole | None = 16
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=TOP)
    best_of: Whole | None = None
    suffix: str | None = None


class Chat(OpenAi):
    """OpenAI's request for a turn of a conversation."""

    messages: list[Turn] = Field(min_length=1, fail_fast=True)
    chat_template_kwargs: Template
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=TOP)
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    reasoning_effort: str | None = None
    parallel_tool_calls: bool | None = None


class SetParameter(Closed):
    """A live parameter of a generation in progress."""

    name: str
    value: float | str


Role = Literal["model", "expert", "amateur", "draft"]


class Load(Closed):
    """Which model is to play which role."""

    role: Role = "model"
    name: str | None = Field(None, description="A name of the list of models; null loads what is assigned.")
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8", "4bit"] | None = None


class Unload(Closed):
    """Which role's model is to leave memory."""

    role: Role = "model"


def describe(openapi: dict[str, Any]) -> dict[str, Any]:
    """Completes an OpenAPI document with the strategies that are there and the ranges of their parameters."""
    schemas = openapi["components"]["schemas"]
    strategies = decoders.all()
    references = []
    for decoder in strategies:
        name = f"{decoder.name.title().replace('_', '')}Params"
        schemas[name] = {
            "title": name,
            "type": "object",
            "description": f"Parameters of {decoder.name}: {decoder.summary}",
            "properties": {param.name: _schema(param) for param in decoder.params},
            "additionalProperties": False,
        }
        references.append({"$ref": f"#/components/schemas/{name}"})
    names = [decoder.name for decoder in strategies]
    told = "; ".join(f"{decoder.name}: {decoder.summary.rstrip('.')}" for decoder in strategies)
    for schema in schemas.values():
        fields = schema.get("properties", {})
        if {"strategy", "params"} <= fields.keys():
            fields["strategy"] = {
                "anyOf": [{"type": "string", "enum": names}, {"type": "null"}],
                "title": "Strategy",
                "description": f"How tokens are chosen ({told}).",
            }
            fields["params"] = {
                "title": "Params",
                "description": "The strategy's parameters; those of another strategy are refused.",
                "anyOf": references,
            }
    return openapi


def _schema(param: Param) -> dict[str, Any]:
    """A parameter's range as JSON schema."""
    schema: dict[str, Any] = {"title": param.title, "description": param.help}
    if param.choices:
        return {
            **schema,
            "type": "string",
            "enum": list(param.choices),
            "default": param.format(param.default),
        }
    low = "exclusiveMinimum" if param.low_open else "minimum"
    kind = "integer" if param.integer else "number"
    return {**schema, "type": kind, low: param.low, "maximum": param.high, "default": param.default}
