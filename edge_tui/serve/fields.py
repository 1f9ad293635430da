"""Defines the types of fields that requests share: numbers, ids, stop texts, hints, unsupported fields.

A null counts as absent in every object (`StrictModel`), so that a client may send all the fields it knows.
"""

from __future__ import annotations

from typing import Annotated, Any

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

MAX_STOPS = 16


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
Parameters = Annotated[dict[str, float | str | StrictBool], BeforeValidator(_without_nulls)]
TemplateVariables = Annotated[
    dict[str, Any],
    Field(default_factory=dict, description="Variables of the chat template, such as enable_thinking."),
]
ControlTokens = Annotated[
    StrictBool | None,
    Field(description="A control token's name in the prompt is that token, not text; null: as served."),
]
