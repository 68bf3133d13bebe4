"""The server of the prompt page.

Access needs a token in the address, a known host name and the page's own origin. Request bodies are limited in size.
The only files that can be read are frames of the dataset, its manifest and the mask files that the manifest names.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import re
import secrets
import socket
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aot.drawing.colours import OBJECT_COLOURS
from aot.errors import AotError, ConfigError
from aot.manifest.edit_file import ManifestConflict, version_of
from aot.manifest.edit_text import plain_entry
from aot.manifest.read import check_entry
from aot.manifest.schema import ClipEntry, ObjectEntry
from aot.prompt.clips import ClipList
from aot.prompt.frames import ClipFrames
from aot.prompt.masks import LiveMasks
from aot.prompt.words import LiveWords
from aot.system.os_errors import os_reason

# An entry may contain masks as run lengths.
MAX_BODY_BYTES = 8 * 2**20
_TOO_LARGE = f"request body too large; expected at most {MAX_BODY_BYTES} bytes"
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain"})
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Session:
    """Facts about the session that the page shows."""

    dataset: str
    manifest: str
    segmenter: str
    """Name of the segmenter that makes the masks; empty: there are no masks."""
    segmenter_note: str
    """Why a preferred segmenter is not used; empty otherwise."""
    detector: str
    """Name of the detector that finds objects by words; empty: there is none."""
    run_command: str
    """The `aot.run` command with the same options."""


class EntryChange(BaseModel):
    """The edited objects of one clip."""

    model_config = ConfigDict(extra="forbid")

    clip: str
    version: str
    objects: list[dict[str, Any]] = Field(max_length=10_000)


class MaskRequest(BaseModel):
    """The prompts of one frame."""

    model_config = ConfigDict(extra="forbid")

    clip: str
    frame: int = Field(ge=0, lt=2**31)
    objects: list[ObjectEntry] = Field(max_length=300)


class WordsRequest(BaseModel):
    """What to find on one frame."""

    model_config = ConfigDict(extra="forbid")

    clip: str
    frame: int = Field(ge=0, lt=2**31)
    text: str
    every: bool
    """All objects that the text describes; otherwise the best one."""


class PromptServer:
    """The page and its API as the ASGI application `app`.

    Args:
        clips: the list of clips and their prompts.
        frames: source of frames and thumbnails.
        masks: source of masks.
        words: finds objects by words.
        session: shown on the page.
        token: secret; the first part of every path.
        hosts: accepted host names besides `localhost` and IP addresses.
        origins: origins of proxies, such as "https://hub.example.org", from which requests are accepted too.
    """

    def __init__(
        self,
        clips: ClipList,
        frames: ClipFrames,
        masks: LiveMasks,
        words: LiveWords,
        session: Session,
        *,
        token: str,
        hosts: frozenset[str] = frozenset(),
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self._clips = clips
        self._frames = frames
        self._masks = masks
        self._words = words
        self._session = session
        self._assets = _assets()
        # One thread only, so that thumbnails do not delay the shown frame.
        self._thumbnail_threads = CapacityLimiter(1)
        routes = [
            Route("/", partial(self._asset, name="prompt.html")),
            Route("/static/{name}", self._asset),
            Route("/api/session", self._get_session),
            Route("/api/clips", self._get_clips),
            Route("/api/clip", self._get_clip),
            Route("/api/frame", self._get_frame),
            Route("/api/thumbnail", self._get_thumbnail),
            Route("/api/masks", self._compute_masks, methods=["POST"]),
            Route("/api/words", self._find_words, methods=["POST"]),
            Route("/api/entry", self._save_entry, methods=["PUT"]),
        ]
        handlers = {AotError: _error_response, ValidationError: _error_response, HTTPException: _http_error_response}
        guard = Middleware(Guard, token=token, hosts=hosts, origins=origins)
        self.app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers, middleware=[guard])

    async def _asset(self, request: Request, name: str = "") -> Response:
        name = name or request.path_params["name"]
        if name not in self._assets:
            raise HTTPException(404)
        suffix = "." + name.rpartition(".")[2]
        return Response(self._assets[name], media_type=_CONTENT_TYPES[suffix])

    async def _get_session(self, request: Request) -> Response:
        return JSONResponse({**asdict(self._session), "palette": [list(rgb) for rgb in OBJECT_COLOURS]})

    async def _get_clips(self, request: Request) -> Response:
        """All clips; only the revision if the page already has it."""
        revision, states = await to_thread.run_sync(self._clips.states)
        if request.query_params.get("revision") == revision:
            return JSONResponse({"revision": revision})
        return JSONResponse({"revision": revision, "clips": [asdict(state) for state in states]})

    async def _get_clip(self, request: Request) -> Response:
        clip_id = self._requested_clip(request)
        info = await to_thread.run_sync(self._frames.info, clip_id)
        return JSONResponse({**asdict(info), **self._entry(clip_id)})

    async def _get_frame(self, request: Request) -> Response:
        """A frame; of a page that has moved on to other frames meanwhile, the request ends without decoding."""
        clip_id, number = self._requested_clip(request), _number(request, "frame")
        has_left = threading.Event()
        watching = asyncio.create_task(_watch(request, has_left))
        try:
            show = partial(self._frames.shown, clip_id, number, is_obsolete=has_left.is_set)
            frame = await to_thread.run_sync(show)
        finally:
            watching.cancel()
        if frame is None:
            return Response(status_code=204)
        return Response(frame.jpeg, media_type="image/jpeg", headers={"X-Frame-Time": f"{frame.time:.6f}"})

    async def _get_thumbnail(self, request: Request) -> Response:
        clip_id = self._requested_clip(request)
        jpeg = await to_thread.run_sync(self._frames.thumbnail, clip_id, limiter=self._thumbnail_threads)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    async def _compute_masks(self, request: Request) -> Response:
        requested = MaskRequest.model_validate(await _json(request))
        self._known_clip(requested.clip)
        self._refuse_new_files(requested.clip, requested.objects)
        found = await to_thread.run_sync(self._masks.masks, requested.clip, requested.frame, requested.objects)
        masks = [{**asdict(mask), "png": base64.b64encode(mask.png).decode()} for mask in found]
        return JSONResponse({"frame": requested.frame, "masks": masks})

    async def _find_words(self, request: Request) -> Response:
        asked = WordsRequest.model_validate(await _json(request))
        self._known_clip(asked.clip)
        check_entry(asked.clip, [{"id": 1, "frame": asked.frame, "text": asked.text}])
        find = partial(self._words.find, asked.clip, asked.frame, asked.text, is_every=asked.every)
        found = await to_thread.run_sync(find)
        objects = plain_entry(ClipEntry.model_construct(objects=found.objects))["objects"]
        return JSONResponse({"objects": objects, "note": found.note})

    async def _save_entry(self, request: Request) -> Response:
        change = EntryChange.model_validate(await _json(request))
        self._known_clip(change.clip)
        entry = check_entry(change.clip, change.objects) if change.objects else None
        self._refuse_new_files(change.clip, entry.objects if entry else [])
        save = partial(self._clips.manifest.save, change.clip, entry, change.version)
        try:
            await to_thread.run_sync(save)
        except ManifestConflict as conflict:
            return JSONResponse({"error": str(conflict), **self._entry(change.clip)}, status_code=409)
        state = self._clips.state(change.clip)
        return JSONResponse({**self._entry(change.clip), "state": state.state, "num_objects": state.num_objects})

    def _entry(self, clip_id: str) -> dict[str, Any]:
        """The prompts of a clip and their version, which must be sent with a save."""
        entry, pattern = self._clips.entry(clip_id)
        objects = [] if entry is None else plain_entry(entry)["objects"]
        return {"objects": objects, "pattern": pattern, "version": version_of(None if pattern else entry)}

    def _requested_clip(self, request: Request) -> str:
        return self._known_clip(request.query_params.get("clip", ""))

    def _known_clip(self, clip_id: str) -> str:
        if clip_id not in self._clips.clips:
            raise HTTPException(404, "no such clip in the dataset")
        return clip_id

    def _refuse_new_files(self, clip_id: str, objects: Any) -> None:
        """Refuse mask files that the manifest on disk does not name, because they would be read and shown."""
        entry, _ = self._clips.entry(clip_id)
        known = {item.mask for item in entry.objects} if entry else set()
        if any(isinstance(item.mask, str) and item.mask not in known for item in objects):
            raise HTTPException(403, "mask: the manifest on disk does not name this file; add new mask files there")


class Guard:
    """Middleware that accepts only requests of the page itself: known host, same origin, valid token, small body.

    Args:
        app: the application to protect.
        token: secret; the first part of every path, removed before `app` sees it.
        hosts: accepted host names besides `localhost` and IP addresses.
        origins: accepted origins besides the page's own.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str], origins: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._refuse(scope)
        if refused is not None:
            await refused(scope, receive, _with_headers(send))
            return
        inner = {**scope, "path": scope["path"][len(self._token) + 1 :], "raw_path": None}
        await self._app(inner, receive, _with_headers(send))

    def _refuse(self, scope: Scope) -> Response | None:
        request = Request(scope)
        host = request.headers.get("host", "")
        if not self._is_own_host(host):
            return PlainTextResponse(
                f"unknown host name {host[:100]!r}; open the address printed in the terminal, or allow it with "
                f"--allow-host",
                status_code=421,
            )
        if request.headers.get("origin") not in self._origins and _is_cross_origin(request, host):
            return PlainTextResponse(
                "cross-origin request refused; allow the origin of a proxy with --allow-origin", status_code=403
            )
        given, slash, _ = scope["path"].lstrip("/").partition("/")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse(
                "missing or wrong token; open the address printed in the terminal", status_code=403
            )
        if not slash:
            return RedirectResponse(f"{self._token}/")  # relative: a proxy may serve the page below another path
        size = request.headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > MAX_BODY_BYTES:
            return PlainTextResponse(_TOO_LARGE, status_code=413, headers={"Connection": "close"})
        return None

    def _is_own_host(self, host: str) -> bool:
        # DNS rebinding: another site's host name may resolve to this server. An IP address cannot be abused that way.
        name = (_split_address(f"//{host}").hostname or "").lower()
        if name in _LOCAL_NAMES or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _split_address(address: str) -> SplitResult:
    """Split an untrusted address; all parts are empty if it is malformed."""
    try:
        parts = urlsplit(address)
        parts.hostname  # noqa: B018 (raises for some malformed addresses)
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def _is_cross_origin(request: Request, host: str) -> bool:
    """Whether the request comes from another site; following a link from there is allowed."""
    origin = request.headers.get("origin")
    if origin is not None and _split_address(origin).netloc != host:
        return True
    site, mode = request.headers.get("sec-fetch-site", "none"), request.headers.get("sec-fetch-mode")
    return site not in ("none", "same-origin") and mode != "navigate"


async def _watch(request: Request, has_left: threading.Event) -> None:
    """Note when the browser has aborted a request."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    has_left.set()


async def _json(request: Request) -> Any:
    """The parsed body; reading stops at MAX_BODY_BYTES."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Content-Type: expected application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE, headers={"Connection": "close"})
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise HTTPException(400, "request body: expected JSON") from exc


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(400, f"{name}: expected an integer ≥ 0, got {text[:20]!r}")
    return int(text)


def _error_response(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=422)


def _http_error_response(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _assets() -> dict[str, bytes]:
    """The static files by name; no other files are served as static files."""
    folders = [resources.files("aot.pages") / "assets", resources.files("aot.prompt") / "page"]
    return {file.name: file.read_bytes() for folder in folders for file in folder.iterdir() if file.is_file()}


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def new_token() -> str:
    """A random token of 192 bits."""
    return secrets.token_urlsafe(24)


def token_of(path: Path) -> str:
    """The token in a file, which is written, readable for its owner only, if it does not exist.

    Raises:
        ConfigError: the file cannot be read or written, others can read it, or it does not hold a token.
    """
    try:
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{new_token()}\n")
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except (OSError, ValueError) as exc:
        reason = os_reason(exc, otherwise="it is not text")
        raise ConfigError(f"--token-file {path}: cannot be used: {reason}; expected a file of your own") from exc
    if mode & 0o077:
        raise ConfigError(f"--token-file {path}: others can read it; run chmod 600 on it, or name another file")
    if not re.fullmatch(r"[A-Za-z0-9_-]{22,}", token):
        raise ConfigError(
            f"--token-file {path}: holds no token; expected at least 22 letters, digits, - or _: delete the file, and "
            f"one is written"
        )
    return token


def own_names() -> frozenset[str]:
    """The host names of this machine."""
    return frozenset({socket.gethostname().lower(), socket.getfqdn().lower()})
