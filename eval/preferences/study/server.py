"""Several raters at once: `python -m eval.preferences.study.server --study DIR --port P`, and `--export FILE`.

Serves the page, the images of the study by their codes, and nothing else of the directory: not the key.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from add.errors import InputError, at_least, refuses
from eval.preferences.reader import write_votes
from eval.preferences.record import Winner, invalid
from eval.preferences.study.page import served_page
from eval.preferences.study.plan import Strict, StudyPlan, image_file, rater_name, read_study
from eval.preferences.study.store import KnownRaterError, RefusedError, Store

_LARGEST_BODY = 4096

Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class JoinRequest(Strict):
    """Body of POST /api/join."""

    rater: str
    resume: bool = False


class UndoRequest(Strict):
    """Body of POST /api/undo. key: drawn by the client, the same when it sends this again."""

    rater: str
    trial: str
    key: Key


class VoteRequest(UndoRequest):
    """Body of POST /api/vote."""

    winner: Winner


def create_app(study: StudyPlan, directory: Path, store: Store, hosts: Sequence[str] = ()) -> Starlette:
    """The server of one study. hosts: names besides localhost under which clients may address it."""
    page, policy = served_page(study)
    images = frozenset(study.images())
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page)

    async def show_image(request: Request) -> Response:
        # Only a code of this study becomes a path.
        code = request.path_params["code"]
        if code not in images:
            return _error(404, "no such image")
        return FileResponse(image_file(directory, code), media_type="image/png")

    async def join(request: Request) -> Response:
        asked = JoinRequest.model_validate_json(await _body(request))
        rater = _rater(asked.rater)
        joined = await run_in_threadpool(store.join, rater, asked.resume)
        # The page is told neither the systems nor which trials are checks.
        hidden = {"system_a", "system_b", "check"}
        trials = [trial.model_dump(exclude=hidden) for trial in study.lists[joined.name]]
        prompts = {trial["prompt_id"]: study.prompts[trial["prompt_id"]] for trial in trials}
        return JSONResponse({"rater": rater, "trials": trials, "prompts": prompts, "answers": joined.answers})

    async def vote(request: Request) -> Response:
        asked = VoteRequest.model_validate_json(await _body(request))
        rater = _rater(asked.rater)
        await run_in_threadpool(store.vote, rater, asked.trial, asked.winner, asked.key, _now())
        return JSONResponse({"saved": asked.key})

    async def undo(request: Request) -> Response:
        asked = UndoRequest.model_validate_json(await _body(request))
        await run_in_threadpool(store.vote, _rater(asked.rater), asked.trial, None, asked.key, _now())
        return JSONResponse({"saved": asked.key})

    async def export_csv(request: Request) -> Response:
        # It holds all raters' names and answers: for the organiser, on this machine.
        if request.client is None or not ipaddress.ip_address(request.client.host).is_loopback:
            return _error(403, "only on the server's own machine; or use --export there")
        text = await run_in_threadpool(_csv, store)
        if text is None:
            return _error(409, "no votes yet")
        return Response(text, media_type="text/csv; charset=utf-8")

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = _refusal(request, hosts) or await call_next(request)
        response.headers.update(headers)
        return response

    pages = {"/": show_page, "/images/{code}.png": show_image, "/export.csv": export_csv}
    actions = {"/api/join": join, "/api/vote": vote, "/api/undo": undo}
    return Starlette(
        routes=[
            *(Route(path, handler) for path, handler in pages.items()),
            *(Route(path, handler, methods=["POST"]) for path, handler in actions.items()),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={RefusedError: _refused, ValidationError: _refused},
    )


def export(store: Store, file: Path) -> int:
    """Write all votes as a preference file and return how many; without votes there is no file."""
    if votes := store.votes():
        write_votes(file, votes)
    return len(votes)


def _csv(store: Store) -> bytes | None:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "votes.csv"
        return file.read_bytes() if export(store, file) else None


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, ValidationError):
        return _error(422, invalid(error))
    if isinstance(error, KnownRaterError):
        return JSONResponse({"error": str(error), "known": True}, 409)
    return _error(409, str(error))


def _refusal(request: Request, hosts: Sequence[str]) -> Response | None:
    """Refuses requests that another web site made the browser send: by its origin, or by a host name of its own."""
    host = request.url.hostname or ""
    if not (_is_address(host) or host in ("localhost", *hosts)):
        return _error(421, f"this server is not called {host!r}; start it with --allow-host to let it be")
    if request.method != "POST":
        return None
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return _error(403, "sent by another web site")
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
        return _error(415, "the body must be application/json")
    return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise RefusedError(f"the request is longer than {_LARGEST_BODY} bytes")
    return body


def _rater(text: str) -> str:
    if (name := rater_name(text)) is None:
        raise RefusedError("the rater's name must be 1 to 40 letters, digits, spaces and . _ ' -")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)


def _port(text: str) -> int:
    number = at_least(0)(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"should be 65535 or less, not {number}")
    return number


@refuses
def main(arguments: Sequence[str] | None = None) -> None:
    """The command. Exit status 1 and one line on stderr where the study cannot be served."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m eval.preferences.study.server", description=__doc__)
    parser.add_argument("--study", type=Path, required=True, help="a directory that `make` wrote")
    parser.add_argument("--port", type=_port, default=8000)
    host = "0.0.0.0 lets other machines in (default: 127.0.0.1)"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--allow-host", action="append", default=[], help="a host name of this machine")
    parser.add_argument("--votes", type=Path, help="the SQLite file (default: votes.sqlite3 in the study)")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the votes as CSV and stop")
    options = parser.parse_args(arguments)
    study = read_study(options.study)
    store = Store(options.votes or options.study / "votes.sqlite3", study)
    if options.export is not None:
        if (count := export(store, options.export)) == 0:
            raise InputError("nobody has voted yet; no file was written")
        print(f"{options.export}: {count} votes")
        return
    print(f"{study.study}: raters open http://{options.host}:{options.port}/", flush=True)
    app = create_app(study, options.study, store, options.allow_host)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    sys.exit(main())
