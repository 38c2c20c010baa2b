"""Errors over HTTP: `application/problem+json` (RFC 9457), with the sentence of the engine's error in `detail`."""

from typing import Any

from fastapi.responses import JSONResponse


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
