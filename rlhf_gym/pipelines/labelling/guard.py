"""Who may talk to the page: this machine alone, or whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "rlhf_gym_label"
YEAR = 365 * 24 * 3600

HEADERS = {
    # The page runs its own scripts and no others, whatever a text contains.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Turns away strangers, and sends security headers with every answer.

    Without a token only requests that name this machine as their host are answered, so that no
    other site's page can reach this one through the rater's browser by a name of its own (DNS
    rebinding). With a token, it must be in the address once; from then on a cookie carries it.
    Either way, what changes something must come from the page itself.

    Args:
        app: what is guarded.
        token: the secret; None on loopback.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """What a stranger gets, None for one who may pass."""
        if self.token is None:
            if not is_loopback(_host(request.headers.get("host", ""))):
                return PlainTextResponse("This page is only for its own machine.", 403)
        elif not self._has_token(request):
            if request.method == "GET" and self._is_token(request.query_params.get("token")):
                # The secret leaves the address bar and the history.
                answer = RedirectResponse(request.url.path, 303)
                answer.set_cookie(
                    COOKIE, self.token, max_age=YEAR, httponly=True, samesite="strict"
                )
                return answer
            return PlainTextResponse(
                "This page is guarded. Open the address that `rlhf-gym label` printed, "
                "with its token.",
                401,
            )
        if request.method == "POST" and not _from_own_page(request.headers):
            return PlainTextResponse("Only the page itself may send this.", 403)
        return None

    def _has_token(self, request: Request) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self._is_token(request.cookies.get(COOKIE)) or self._is_token(bearer)

    def _is_token(self, given: str | None) -> bool:
        return self.token is not None and hmac.compare_digest(
            (given or "").encode(), self.token.encode()
        )


def _from_own_page(headers: Headers) -> bool:
    # Another site's form cannot send JSON, and its script names itself as the origin.
    kind = headers.get("content-type", "").partition(";")[0].strip()
    origin = headers.get("origin")
    return kind == "application/json" and (
        origin is None or urlsplit(origin).netloc == headers.get("host")
    )


def _host(header: str) -> str:
    """The host without its port."""
    return urlsplit(f"//{header}").hostname or ""
