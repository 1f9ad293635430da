"""Answers requests that fail with a status and one JSON object, the same on every route.

The object is OpenAI's, `{"error": {"message", "type", "param", "code"}}`, so that their clients raise the
right exception. A message is one sentence; tracebacks go to the log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from edge_tui.engine.remote.codec import REQUEST_KEYS
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request

    from edge_tui.engine.events import Failed

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_STATUS = {
    "empty_prompt": 400,
    "context_length_exceeded": 400,
    "model_not_found": 404,
    "cannot_explain": 422,
    "unavailable": 503,
}
"""HTTP status of a failed generation by its code; for other codes the field decides."""
_UNION_MEMBER = re.compile(r"(str|int|float|bool|(list|tuple|constrained|function)\b.*)$")
"""Parts of a validation error's location that name a member of a union instead of a field or an index."""


class ApiError(HTTPException):
    """Refuses a request.

    Args:
        status: HTTP status.
        message: One sentence for the client's user.
        param: The field at fault, if one is.
        code: Names the error for programs; the status's type of error without.
        headers: Of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.message = message
        self.param = param
        self.type = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.code = code or self.type

    def body(self) -> dict[str, Any]:
        """Returns the response's JSON object."""
        names = ("message", "type", "param", "code")
        return {"error": {name: getattr(self, name) for name in names}}

    def response(self) -> JSONResponse:
        """Returns the response."""
        return JSONResponse(self.body(), self.status_code, self.headers)


def model_not_found(name: str, served: str) -> ApiError:
    """Returns the error about a model that this server does not have."""
    message = f"There is no model {name!r} here; this server answers with {served}."
    return ApiError(404, message, "model", "model_not_found")


def of_failure(failure: Failed) -> ApiError:
    """Turns a failed generation into an error: 4xx if its request is at fault, else 5xx."""
    if failure.detail:
        logs.write_detail(failure.detail)
    param = REQUEST_KEYS.get(failure.field, failure.field) or None
    if status := _STATUS.get(failure.code):
        return ApiError(status, failure.message, param, failure.code)
    if param:
        return ApiError(422, failure.message, param, "invalid_value")
    return ApiError(500, failure.message, code="strategy_error" if failure.problem else None)


async def handle(request: Request, error: Exception) -> JSONResponse:
    """Answers a request that has raised an error."""
    if isinstance(error, RequestValidationError):
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
        error = _from_validation(error) if is_json else _wrong_media_type(kind)
    elif not isinstance(error, HTTPException):
        logs.write_crash(error)
        error = ApiError(500, "Something went wrong in the server; its log has the details.")
    elif not isinstance(error, ApiError):
        error = ApiError(error.status_code, str(error.detail), headers=error.headers)
    return error.response()


HANDLERS: dict[int | type[Exception], Any] = dict.fromkeys(
    (RequestValidationError, HTTPException, Exception), handle
)
"""Handlers of errors, for an application; they give every error the same shape."""


def _wrong_media_type(kind: str) -> ApiError:
    """Refuses a body without JSON's media type, which a form of a web page could have sent."""
    content = f"it says {kind[:80]!r}" if kind else "there is none"
    return ApiError(
        415, f"The body must come with the header Content-Type: application/json; {content}.", code="no_json"
    )


def _from_validation(error: RequestValidationError) -> ApiError:
    """Reports the first invalid field. Its value is not repeated: it may be huge, or a number JSON lacks.

    Where a field is a union, each member reports an error; the one with the longest location fits best.
    """
    errors = error.errors()
    field = errors[0]["loc"][:2]
    first = max((one for one in errors if one["loc"][:2] == field), key=lambda one: len(one["loc"]))
    location = ".".join(
        str(part) for part in first["loc"] if part != "body" and not _UNION_MEMBER.match(str(part))
    )
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not JSON.", code="invalid_json")
    message = f"{location}: {first['msg']}." if location else f"The body: {first['msg']}."
    if first["type"] == "extra_forbidden":
        message = (
            f"This server has no field {location!r}; it is refused, because ignoring it would look like use."
        )
    return ApiError(422, message, location or None, first["type"])
