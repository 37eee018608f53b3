"""Errors as answers: `application/problem+json` (RFC 9457), with the right status and nothing of the inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic_core
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ..base import errors
from ..base.log import get_logger

__all__ = ["MEDIA_TYPE", "Problem", "answer", "problem_of"]

MEDIA_TYPE = "application/problem+json"
_log = get_logger("paddock.http")

#: Ours, the more special ones first.
_STATUS: tuple[tuple[type[errors.PaddockError], int], ...] = (
    (errors.WorkflowNotFound, 404),
    (errors.InstanceNotFound, 404),
    (errors.InstanceIdConflict, 409),
    (errors.InvalidTransition, 409),
    (errors.ConcurrencyLimitReached, 429),
    (errors.PayloadTooLarge, 413),
    (errors.UsageError, 422),
    (errors.WorkflowCancelled, 409),
    (errors.WorkflowBlocked, 409),
    (errors.OutcomeError, 424),
    (errors.MachineError, 503),
)
#: Where in the body stands what did not fit.
_PLACES: dict[type[errors.PaddockError], str] = {
    errors.InvalidInput: "body.input",
    errors.InvalidSignal: "body.payload",
    errors.InvalidState: "body",
}
_MACHINE = {
    "ServerNotRunning": "the server is not running, or is about to stop; instances go on at its next start",
    "DatabaseUnavailable": "the database cannot be used now; nothing was changed. Try again later",
}
_HTTP = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 406: "NotAcceptable"}
_DETAIL = {404: "there is nothing here", 405: "this path does not answer that method"}


class Problem(Exception):
    """A request that is answered with a problem.

    Attributes:
        status: of the answer.
        code: a word for programs; the name of our error's class where there is one.
        detail: a sentence for people.
        more: further members.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        """Hold what is answered."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    @property
    def body(self) -> dict[str, Any]:
        """Return the problem's members."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.code)
        return {
            "type": f"urn:paddock:problem:{words.replace(' ', '-').lower()}",
            "title": words.capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }


def problem_of(error: BaseException) -> Problem:
    """Return the problem that an error is to the caller. What is not the caller's to know goes into the log instead."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        code = _HTTP.get(error.status_code, "BadRequest")
        detail = _DETAIL.get(error.status_code, "the request cannot be answered")
        return Problem(error.status_code, code, detail, headers=error.headers)
    if isinstance(error, errors.PaddockError):
        return _ours(error)
    if isinstance(error, ClientDisconnect):  # nobody reads it, and nothing is wrong
        return Problem(400, "ClientDisconnect", "the caller has gone")
    _log.error("a request failed", error=f"{type(error).__name__}: {error}", exc_info=error)
    return Problem(500, "InternalError", "the server failed to answer; its log says why")


def _ours(error: errors.PaddockError) -> Problem:
    code = type(error).__name__
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, errors.MachineError) or status == 500:  # noqa: PLR2004
        _log.error("a request failed", error=f"{code}: {error}")
        return Problem(status, code, _MACHINE.get(code, "the server cannot answer now; its log says why"))
    more: dict[str, Any] = {}
    if isinstance(
        error, errors.WorkflowFailed | errors.WorkflowTimedOut | errors.WorkflowCancelled | errors.WorkflowBlocked
    ):
        more = {
            "id": error.instance_id,
            "workflow_name": error.workflow_name,
            # without its stacks: who runs a workflow need not be who operates the server
            "error": error.error.model_dump(mode="json", include={"type", "message", "step"}) if error.error else None,
        }
    fields = getattr(error, "fields", ())
    if fields:
        place = _PLACES[next(kind for kind in _PLACES if isinstance(error, kind))]
        more["errors"] = [{"where": f"{place}.{where}".rstrip("."), "message": message} for where, message in fields]
    return Problem(status, code, str(error), **more)


def answer(problem: Problem) -> Response:
    """Return a problem as a response."""
    body = pydantic_core.to_json(problem.body, inf_nan_mode="null")
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)
