"""Adds strategies and the ranges of their parameters to the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.base import TextParam
from edge_tui.decoders.core.texts import MOST_CHARACTERS

if TYPE_CHECKING:
    from edge_tui.decoders.base import AnyParam


def describe(openapi: dict[str, Any]) -> dict[str, Any]:
    """Adds the strategies and the ranges of their parameters to an OpenAPI document."""
    schemas = openapi["components"]["schemas"]
    strategies = decoders.strategies()
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
    stages = decoders.current().stages()
    schemas["ChainParams"] = {
        "title": "ChainParams",
        "type": "object",
        "description": "Parameters of a typed chain: those of its stages.",
        "properties": {param.name: _schema(param) for each in stages for param in each.params},
    }
    references.append({"$ref": "#/components/schemas/ChainParams"})
    names = [decoder.name for decoder in strategies]
    listed = ", ".join(stage.name for stage in stages)
    chain = {"type": "string", "pattern": "[+:]", "description": f"Stages in order: {listed}."}
    summaries = "; ".join(f"{decoder.name}: {decoder.summary.rstrip('.')}" for decoder in strategies)
    for schema in schemas.values():
        fields = schema.get("properties", {})
        if {"strategy", "params"} <= fields.keys():
            fields["strategy"] = {
                "anyOf": [{"type": "string", "enum": names}, chain, {"type": "null"}],
                "title": "Strategy",
                "description": f"Strategy that chooses tokens ({summaries}), or a chain, beam:min_p.",
            }
            fields["params"] = {
                "title": "Params",
                "description": "The strategy's parameters; those of another strategy are refused.",
                "anyOf": references,
            }
    return openapi


def _schema(param: AnyParam) -> dict[str, Any]:
    """Returns a parameter's range as JSON schema."""
    schema: dict[str, Any] = {"title": param.title, "description": param.help}
    if isinstance(param, TextParam):
        text = {"type": "string", "maxLength": MOST_CHARACTERS}
        default = list(param.default) if param.many else param.default
        kinds = {"anyOf": [text, {"type": "array", "items": text}]} if param.many else text
        return {**schema, **kinds, "default": default}
    if param.choices:
        return {
            **schema,
            "type": "string",
            "enum": list(param.choices),
            "default": param.text(param.default),
        }
    low = "exclusiveMinimum" if param.low_open else "minimum"
    kind = "integer" if param.integer else "number"
    return {**schema, "type": kind, low: param.low, "maximum": param.high, "default": param.default}
