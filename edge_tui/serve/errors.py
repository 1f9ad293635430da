"""What a client is told when something cannot be done: a status, and one object of one shape everywhere.

The shape is OpenAI's, `{"error": {"message", "type", "param", "code"}}`, so that their clients raise the
right exception. A message is one sentence; tracebacks go to the log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request

    from edge_tui.engine.events import Failed

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}

_KIND = re.compile(r"(str|int|float|bool|(list|constrained|function)\b.*)$")
"""What a complaint's place has besides names and numbers: which of several kinds it is of."""
SERVER = "server"
"""`Failed.field` of a generation that was well asked for, but that nobody can decode any more."""


_FIELDS = {"ids": "prompt", "variables": "chat_template_kwargs"}
"""A request's fields as the engine names them, where clients have another name."""


GONE = "gone"
"""`Failed.field` of a generation for a model that was taken away while it waited."""


def no_model(name: str, here: str) -> str:
    """The sentence about a name that no model here has."""
    return f"There is no model {name!r} here; this server answers with {here}."


class ApiError(HTTPException):
    """A request that gets no answer.

    Args:
        status: HTTP status.
        message: One sentence for whoever asked.
        param: The field at fault, if one is.
        code: A word that programs can test for.
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
        self.code = code

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        ours = "invalid_request_error" if self.status_code < 500 else "server_error"
        kind = _TYPES.get(self.status_code, ours)
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or kind}
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


def of_failure(failure: Failed) -> ApiError:
    """The engine's refusal as an answer: what was asked for is the client's fault, the rest is ours."""
    if failure.detail:
        _log(failure.detail)
    if failure.field == SERVER:
        return ApiError(503, failure.message, code="unavailable")
    if failure.field == GONE:
        return ApiError(404, failure.message, "model", "model_not_found")
    if failure.field == "prompt":
        return ApiError(400, failure.message, "prompt", "context_length_exceeded")
    if failure.field:
        return ApiError(422, failure.message, _FIELDS.get(failure.field, failure.field), "invalid_value")
    return ApiError(500, failure.message, code="strategy_error" if failure.problem else None)


def install(app: FastAPI) -> None:
    """Makes every error of an application speak this shape."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
            return _no_json(kind).response()
        return _of_validation(error).response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return ApiError(error.status_code, str(error.detail), headers=error.headers).response()

    async def broken(_: Request, error: Exception) -> JSONResponse:
        import traceback

        _log("".join(traceback.format_exception(error)))
        return ApiError(500, "Something went wrong in the server; its log has the details.").response()

    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)


def _no_json(kind: str) -> ApiError:
    """The answer to a body that is not announced as JSON: a form of a web page could have sent it."""
    said = f"it says {kind[:80]!r}" if kind else "there is none"
    return ApiError(
        415, f"The body must come with the header Content-Type: application/json; {said}.", code="no_json"
    )


def _of_validation(error: RequestValidationError) -> ApiError:
    """The first complaint. What was sent is not repeated: it may be huge, or a number JSON does not know.

    Where a field may be of several kinds, each complains; the one that got farthest is what was meant.
    """
    complaints = error.errors()
    field = complaints[0]["loc"][:2]
    first = max((one for one in complaints if one["loc"][:2] == field), key=lambda one: len(one["loc"]))
    place = ".".join(str(part) for part in first["loc"] if part != "body" and not _KIND.match(str(part)))
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is not JSON.", code="invalid_json")
    message = f"{place}: {first['msg']}." if place else f"The body: {first['msg']}."
    if first["type"] == "extra_forbidden":
        message = (
            f"This server has no field {place!r}; it is refused, because ignoring it would look like use."
        )
    return ApiError(422, message, place or None, first["type"])


def _log(detail: str) -> None:
    from edge_tui.util import logs

    logs.write_detail(detail)
