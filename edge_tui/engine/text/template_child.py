"""Compiles and renders chat templates in a child process (`python -m edge_tui.engine.text.template_child`).

A template is code from a stranger. Jinja's immutable sandbox keeps it away from files, processes and
networks. It does not keep it from computing for ever inside one call of C, which no thread can interrupt, or
from filling the memory; a process can be bounded in both.

The process reads requests from standard input and writes one answer for each to standard output. A frame is
the length of a JSON text in four bytes, big end first, then the text.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
from datetime import datetime
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

CHARACTERS = 4_000_000
"""Most characters of the prompt that a template writes."""
FRAME_BYTES = 12 * CHARACTERS + 1000
"""Most bytes of a frame: a character takes at most twelve in ASCII JSON."""
_DETAIL = 300
"""Most characters of an error's text that are passed on."""
_GRACE = 1.0
"""Seconds beyond the time limit after which this process ends by itself, because its parent must be gone."""
_STACK = 256 * 1024
"""Bytes of stack of the thread that ends this process."""


def main(seconds: float, memory: int) -> None:
    """Answers requests until standard input ends.

    Args:
        seconds: Time limit of a request, in seconds.
        memory: Limit of this process's address space, in bytes; 0 sets none.
    """
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    limit_resources(memory)
    threading.stack_size(_STACK)
    import unicodedata  # noqa: F401 — loaded now, since a template may name a character when memory is short

    environment()
    write_frame(answers, {"ready": True})
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        while (request := read_frame(requests)) is not None:
            # A thread in C: it needs no interpreter lock, which a comparison of lists does not let go.
            faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=nowhere)
            write_frame(answers, answer(request))
            faulthandler.cancel_dump_traceback_later()


def limit_resources(memory: int) -> None:
    """Limits this process's address space to `memory` bytes unless 0, and forbids core dumps and files.

    Windows has no such limits.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if memory:
        limits[resource.RLIMIT_AS] = memory
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        least = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (least, least))


def read_frame(stream: IO[bytes]) -> Any:
    """Reads one JSON value; None at the end of the stream.

    Raises:
        ValueError: the frame is longer than `FRAME_BYTES`, or no JSON.
        RecursionError: its JSON is nested too deeply.
    """
    head = stream.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    if length > FRAME_BYTES:
        raise ValueError(f"a frame of {length:,} bytes")
    body = stream.read(length)
    return json.loads(body) if len(body) == length else None


def pack(value: object) -> bytes:
    """Returns the frame of a JSON value.

    Raises:
        ValueError: it is longer than `FRAME_BYTES`, or JSON has no such value.
    """
    try:
        body = json.dumps(value).encode()
    except (TypeError, RecursionError) as error:
        raise ValueError(f"JSON cannot hold it: {error}") from error
    if len(body) > FRAME_BYTES:
        raise ValueError(f"it has more than {FRAME_BYTES:,} bytes")
    return len(body).to_bytes(4, "big") + body


def write_frame(stream: IO[bytes], value: object) -> None:
    """Writes one JSON value.

    Raises:
        ValueError: see `pack`.
        OSError: nobody reads.
    """
    stream.write(pack(value))
    stream.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Renders one request.

    Args:
        request: `template`, Jinja source; `variables` by name, or None to compile only.

    Returns:
        `text`, the prompt; without variables `names`, the variables that the template reads; or `error`, one
        of "output", "template", "memory", "recursion", and its `detail`.
    """
    try:
        try:
            template = compile_template(request["template"])
            if request["variables"] is None:
                return {"names": read_names(request["template"])}
            return _render(template, request["variables"])
        except (MemoryError, RecursionError):
            raise
        except Exception as error:
            return {"error": "template", "detail": _describe(error)}
    except MemoryError:
        return {"error": "memory", "detail": ""}
    except RecursionError:
        return {"error": "recursion", "detail": ""}


def _render(template: Template, variables: dict[str, Any]) -> dict[str, str]:
    chunks: list[str] = []
    length = 0
    for chunk in template.generate(variables):
        chunks.append(chunk)
        length += len(chunk)
        if length > CHARACTERS:
            return {"error": "output", "detail": ""}
    return {"text": "".join(chunks)}


def _describe(error: Exception) -> str:
    from jinja2 import TemplateError

    if isinstance(error, TemplateError):
        return f"it says: {(error.message or type(error).__name__)[:_DETAIL]}"
    return f"{type(error).__name__}: {str(error)[:_DETAIL]}"


@lru_cache(maxsize=8)
def compile_template(source: str) -> Template:
    """Compiles a template; the last eight are kept."""
    return environment().from_string(source)


@lru_cache(maxsize=8)
def read_names(source: str) -> list[str]:
    """Lists the variables that a template takes from outside."""
    from jinja2 import meta

    return sorted(meta.find_undeclared_variables(environment().parse(source)))


class _Dict:
    """Makes dicts, and hands out nothing else of `dict`."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _plain_namespace() -> type[Namespace]:
    """Defines a namespace that refuses attributes that begin with an underscore."""
    from jinja2.exceptions import SecurityError
    from jinja2.utils import Namespace

    class PlainNamespace(Namespace):
        """Refuses attributes that begin with an underscore."""

        def __init__(*args: Any, **kwargs: Any) -> None:  # a template may name an attribute `self`
            attributes = dict(*args[1:], **kwargs)
            for name in attributes:
                _check(name)
            Namespace.__init__(args[0], attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            super().__setitem__(name, value)

    def _check(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"the namespace attribute {name!r} begins with an underscore")

    return PlainNamespace


@lru_cache(maxsize=1)
def environment() -> ImmutableSandboxedEnvironment:
    """Builds an environment that renders as transformers' `apply_chat_template` does."""
    from jinja2 import TemplateError, nodes, pass_eval_context
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Passes on the body of `{% generation %}`, which marks the assistant's text for training."""

        tags = {"generation"}  # noqa: RUF012 — as Jinja declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

        @pass_eval_context
        def body(self, _context: object, caller: Any) -> str:
            return str(caller())

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
        """Writes JSON as it is."""
        # Jinja's own filter escapes HTML, which would change the prompt.
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": _Dict(),
        "namespace": _plain_namespace(),
    }
    return env


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
