"""Errors over HTTP: `application/problem+json` (RFC 9457), with the sentence of the engine's error in `detail`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .requests import wrong_value

_CODES = {404: "not-found", 405: "not-allowed"}


class Problem(Exception):  # noqa: N818
    """An answer that is an error."""

    def __init__(self, status: int, code: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, headers

    @property
    def body(self) -> dict[str, Any]:
        """Return the members of the answer."""
        return {"type": f"urn:stvsr:{self.code}", "title": self.code, "status": self.status, "detail": self.detail}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {name.replace("_", "-"): value for name, value in self.headers.items()}
        return JSONResponse(self.body, self.status, headers, media_type="application/problem+json")


def answer_errors(app: FastAPI) -> None:
    """Let an application answer every error with a problem: its own, FastAPI's, and those that nobody expected."""

    @app.exception_handler(Problem)
    def problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    def parameters(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])  # without "query" or "header"
        return Problem(422, "bad-request", wrong_value(where, first)).response()

    @app.exception_handler(HTTPException)
    def status(request: Request, error: HTTPException) -> JSONResponse:
        words = "There is nothing at this address." if error.status_code == 404 else f"{error.detail}."
        if error.status_code == 405:
            words = f"This address takes no {request.method} requests."
        answer = Problem(error.status_code, _CODES.get(error.status_code, "failed"), words).response()
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    def failure(_: Request, __: Exception) -> JSONResponse:
        return Problem(500, "failed", "The server failed at this request: see its log.").response()
