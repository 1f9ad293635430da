"""Defines the base of every error that a user can read: a code for programs, a sentence for people."""

from __future__ import annotations


class EdgeError(Exception):
    """Carries one sentence that names the thing, the limit and the way out.

    Programs branch on `code`, on `field` or on the class, never on the sentence.

    Attributes:
        field: The request's field at fault; empty if none is.
    """

    code: str = "error"
    field: str = ""


class UsageError(EdgeError):
    """Refuses a command line: its flags, its arguments or what they name."""

    code = "usage"


class RequestError(EdgeError, ValueError):
    """Refuses a request that cannot run.

    Args:
        message: One sentence.
        field: The request's field at fault; empty if none is.
    """

    code = "request"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class EmptyPrompt(RequestError):
    """Refuses a request with nothing to decode from."""

    code = "empty_prompt"


class PromptTooLong(RequestError):
    """Refuses a request whose prompt and kept tokens fill the context."""

    code = "context_length_exceeded"


class CannotExplain(EdgeError):
    """Refuses a question about a token that cannot be computed; what was recorded with it still stands."""

    code = "cannot_explain"


class Cancelled(Exception):
    """Ends work that the user stopped: a load, a prompt being read, a template being rendered."""
