"""Services that fail and say in their errors all that they were sent."""

import re
from base64 import b64decode
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.interceptor import Interceptor

_MLFLOW_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "CUSTOMER_UNAUTHORIZED",
    500: "INTERNAL_ERROR",
}


class Echo(Interceptor):
    """Passes everything on while it is well, and nothing that fits while it is not."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        #: How many calls were answered by an echo.
        self.echoed = 0
        self._status = 0
        self._of = re.compile("")

    def fail(self, status: int, of: str = "") -> None:
        """Answer calls ``METHOD /path`` that a pattern fits with a status; 0 makes it well."""
        self._status, self._of = status, re.compile(of)

    async def handle(self, request: Request) -> Response:
        """Answer an echo in the words of whichever service it is, or what the service answers."""
        if not self._status or not self._of.search(f"{request.method} {request.url.path}"):
            return await super().handle(request)
        self.echoed += 1
        words = _all_of(request)
        return JSONResponse(
            {
                "error": words,
                "message": words,
                "error_code": _MLFLOW_CODES[self._status],
            },
            status_code=self._status,
            headers={"X-Error-Message": words},
        )


class EchoOfLinks(Echo):
    """An echo of a lakeFS whose presigned links lead through it, and carry one secret more."""

    def __init__(self, upstream: str, secret: str) -> None:
        super().__init__(upstream)
        self._suffix = f"&X-Amz-Signature={quote(secret)}"

    async def handle(self, request: Request) -> Response:
        """Change the links in an answer; the store takes no notice of what was added."""
        answer = await super().handle(request)
        if "location" in answer.headers:
            answer.headers["location"] = self._changed(answer.headers["location"])
        if b"presigned_url" in answer.body:
            body = re.sub(r'http[^"]*signature=[^"]*', self._changed_match, _text(answer))
            kept = {k: v for k, v in answer.headers.items() if k != "content-length"}
            return Response(body, answer.status_code, kept)
        return answer

    def _changed_match(self, found: re.Match[str]) -> str:
        return self._changed(found[0])

    def _changed(self, link: str) -> str:
        return link.replace(self._upstream, self.url) + self._suffix


def _text(answer: Response) -> str:
    return bytes(answer.body).decode()


def _all_of(request: Request) -> str:
    said = [f"{name}: {value}" for name, value in request.headers.items()]
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        user, _, password = b64decode(credentials).decode().partition(":")
        said.append(f"the password {password} of {user} is wrong")
    elif credentials:
        said.append(f"token {credentials} unknown")
    return f"{request.method} {request.url} refused; {', '.join(said)}"
