"""The page's server: routes, errors, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from rlhf_gym.core.errors import InvalidStore, RLHFGymError, StoreUnavailable
from rlhf_gym.pipelines.labelling.desk import AnsweredAlready, Desk
from rlhf_gym.pipelines.labelling.guard import Guard

if TYPE_CHECKING:
    from rlhf_gym.pipelines.labelling.supervision import Supervision

STATIC = Path(__file__).parent / "static"

LARGEST_REQUEST = 32 * 2**20
"""Bytes; a rewritten answer of several megabytes still passes."""

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]


class TooLarge(RLHFGymError):
    """A request beyond `LARGEST_REQUEST`."""


def make_app(
    desk: Desk, *, supervision: Supervision | None = None, token: str | None = None
) -> Starlette:
    """The server, for uvicorn or any other that speaks ASGI.

    Args:
        desk: who answers.
        supervision: an agent that is taught live, if there is one.
        token: see `Guard`.
    """
    handlers: dict[str, Handler] = {
        "begin": desk.begin,
        "next": desk.next,
        "answer": desk.answer,
        "undo": desk.undo,
        "write": desk.write,
        "standing": desk.standing,
        "end": desk.end,
    }
    if supervision is not None:
        handlers |= {"supervise": supervision.step, "reward": supervision.reward}

    async def clip(request: Request) -> Response:
        query, place = request.path_params["query"], request.path_params["place"]
        strip = await run_in_threadpool(desk.clip, query, place)
        # A query never changes, but another store may be served here tomorrow.
        return Response(strip, media_type="image/webp", headers={"cache-control": "no-cache"})

    routes: list[BaseRoute] = [
        Route("/", _page),
        Route("/supervise", _page),
        Route("/clips/{query:int}/{place:int}", clip),
        Mount("/static", StaticFiles(directory=STATIC)),
        *(
            Route(f"/api/{name}", _endpoint(handler), methods=["POST"])
            for name, handler in handlers.items()
        ),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={RLHFGymError: _problem},
    )


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


def _endpoint(handler: Handler) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            body = json.loads(await _body(request))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return JSONResponse({"problem": "The request is not a JSON object."}, 400)
        # The store waits for the disk; other raters do not.
        return JSONResponse(await run_in_threadpool(handler, body))

    return endpoint


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_REQUEST:
            raise TooLarge(f"More than {LARGEST_REQUEST // 2**20} MB cannot be kept.")
        parts.append(part)
    return b"".join(parts)


async def _problem(_: Request, error: Exception) -> Response:
    """Our own complaints as JSON; `again` says that the same request may work later."""
    status = {AnsweredAlready: 409, TooLarge: 413, StoreUnavailable: 503, InvalidStore: 500}
    code = status.get(type(error), 422)
    return JSONResponse({"problem": str(error), "again": code == 503}, code)
