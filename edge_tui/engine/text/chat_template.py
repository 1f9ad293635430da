"""Chat templates, rendered as transformers renders them, but with bounds.

A template is code from a stranger: Jinja in an immutable sandbox keeps it away from the machine, though not
from running for minutes or filling the memory. So rendering has a deadline, checked at every line it
executes, and no value in it may grow beyond a bound.
"""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edge_tui.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from jinja2 import Template

    from edge_tui.engine.checkpoints.checkpoint import Checkpoint
    from edge_tui.engine.port import Message

__all__ = ["NO_TEMPLATE", "ChatError", "render", "thinking_open"]

NO_TEMPLATE = "The checkpoint has no chat template: the prompt is completed as it stands."
"""Notice for a run that would have used one."""

SECONDS = 2.0
"""Most time a template may take."""
CHARACTERS = 4_000_000
"""Most characters of a value inside a template, and of its output."""
_WIDTH = 10_000
"""Largest number that a formatting filter or method takes as a width or count."""
_THINKING = re.compile(r"<(think|thinking|reasoning)>\s*\Z")


class ChatError(EdgeError):
    """A conversation that cannot be rendered; one sentence: the thing, the limit, the way out."""

    code = "chat_template"


class _BoundError(Exception):
    """A template went beyond a bound; the message says which."""


def render(
    checkpoint: Checkpoint, messages: Sequence[Message], add_generation_prompt: bool = True
) -> str | None:
    """Writes a conversation as the checkpoint was trained to read it.

    The result holds the special tokens it needs, so it is encoded with `special=False`.

    Args:
        checkpoint: Gives the template and the special tokens it names.
        messages: Turns, oldest first.
        add_generation_prompt: End with the opening of an assistant's turn.

    Returns:
        The prompt; None if the checkpoint has no chat template.

    Raises:
        ChatError: the template is broken, refuses the conversation, or goes beyond a bound.
    """
    from jinja2 import TemplateError

    if checkpoint.chat_template is None:
        return None
    tokens = {
        key: text
        for key, value in checkpoint.tokenizer_config.items()
        if key.endswith("_token") and (text := value.get("content") if isinstance(value, dict) else value)
        if isinstance(text, str)
    }
    try:
        template = _compiled(checkpoint.chat_template)
        return _bounded(
            template,
            messages=[{"role": turn.role, "content": turn.content} for turn in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **tokens,
        )
    except _BoundError as error:
        reason = str(error)
    except TemplateError as error:
        reason = f"it says: {error.message or type(error).__name__}"
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
    except (RecursionError, MemoryError) as error:
        reason = f"it ran into a {type(error).__name__}"
    reason = " ".join(reason.split())
    raise ChatError(
        f"The chat template of {checkpoint.name} cannot render this conversation ({reason}); "
        "change the turns, or switch the template off to complete raw text."
    )


def thinking_open(text: str) -> bool:
    """Whether a rendered prompt ends inside an opened `<think>`: what follows is then a thought."""
    return _THINKING.search(text) is not None


def _bounded(template: Template, **variables: Any) -> str:
    """Renders under a deadline. A trace function is the one thing that can interrupt a loop in a thread."""
    deadline = time.monotonic() + SECONDS

    def watch(_frame: FrameType, _event: str, _argument: object) -> Any:
        if time.monotonic() > deadline:
            raise _BoundError(f"it runs for more than {SECONDS:g} s")
        return watch

    chunks: list[str] = []
    length = 0
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        for chunk in template.generate(**variables):
            chunks.append(chunk)
            length += len(chunk)
            if length > CHARACTERS:
                raise _BoundError(f"it writes more than {CHARACTERS:,} characters")
    finally:
        sys.settrace(before)
    return "".join(chunks)


@lru_cache(maxsize=8)
def _compiled(source: str) -> Template:
    """Compiles a template in an environment like that of transformers' `apply_chat_template`."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer

    if len(source) > CHARACTERS:
        raise _BoundError(f"it is longer than {CHARACTERS:,} characters")

    class Generation(Extension):
        """`{% generation %}` marks the assistant's text for training; here it only passes its body."""

        tags = {"generation"}  # noqa: RUF012 — as Jinja declares it

        def parse(self, parser: Any) -> nodes.Node | list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    class Joins(NodeTransformer):
        """Turns `a ~ b` into a filter, where its length can be bounded."""

        def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 — Jinja names it
            self.generic_visit(node)
            operands = nodes.List(node.nodes, lineno=node.lineno)
            return nodes.Filter(operands, "join", [], [], None, None, lineno=node.lineno)

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree: nodes.Template = Joins().visit(super()._parse(source, name, filename))
            return tree

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _affordable_operation(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            # The sandbox hands out str.format in a wrapper of its own.
            owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
            if isinstance(owner, str):
                _affordable_call(function.__name__, owner, args, kwargs)
            return super().call(context, function, *args, **kwargs)

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def strftime_now(layout: str) -> str:
        return datetime.now().strftime(layout)

    def tojson(
        value: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes HTML, which would change the prompt.
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    env = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    for name in ("center", "format", "indent", "join", "replace", "tojson", "wordwrap"):
        env.filters[name] = _guarded(name, env.filters[name])
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env.from_string(source)


def _affordable_operation(operator: str, left: Any, right: Any) -> None:
    """Refuses arithmetic whose result would be huge.

    Raises:
        _BoundError: it would.
    """
    size = 0
    if isinstance(left, int) and isinstance(right, int):
        digits = {"*": left.bit_length() + right.bit_length(), "**": left.bit_length() * max(right, 0)}
        size = digits.get(operator, 0)
    elif operator == "*":
        sequence, count = (right, left) if isinstance(left, int) else (left, right)
        size = len(sequence) * max(int(count), 0) if hasattr(sequence, "__len__") else 0
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        size = len(left) + len(right)
    elif operator == "%" and isinstance(left, str):
        _affordable_call("format", left, (right,), {})
    if size > CHARACTERS:
        raise _BoundError(f"it makes a value of {size:,} characters")


def _affordable_call(name: str, owner: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuses a string method or filter whose result would be huge.

    Raises:
        _BoundError: it would.
    """
    given = [*args, *kwargs.values()]
    if any(isinstance(value, int) and value > _WIDTH for value in given):
        raise _BoundError(f"it asks {name} for more than {_WIDTH:,}")
    size = len(owner)
    if name == "replace" and len(args) > 1:
        size += owner.count(str(args[0])) * len(str(args[1]))
    elif name == "join" and args and isinstance(args[0], list | tuple):
        size = sum(len(str(part)) + len(owner) for part in args[0])
    elif name in ("format", "format_map") and re.search(r"\d{5,}|\*", owner):
        raise _BoundError(f"it asks {name} for more than {_WIDTH:,}")
    if size > CHARACTERS:
        raise _BoundError(f"it makes a value of {size:,} characters")


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter with its arguments looked at first."""
    from functools import wraps

    passes = getattr(function, "jinja_pass_arg", None)  # an environment or context comes before the value

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        value, *rest = args[1:] if passes else args
        if name == "join":
            value = list(value)
            separator = str(rest[0]) if rest else str(kwargs.get("d", ""))
            _affordable_call(name, separator, (value,), {})
            args = (args[0], value, *rest) if passes else (value, *rest)
        else:
            _affordable_call(name, str(value) if isinstance(value, str) else "", tuple(rest), kwargs)
        return function(*args, **kwargs)

    return guarded
