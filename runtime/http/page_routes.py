"""The page: files of the folder `page`, read once. What is not among them is not there, so no path leads anywhere else."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["ROUTES"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"  # text that would become markup is refused by the browser
)
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_NO_PAGE = (
    b"<!doctype html><title>Paddock</title><p>This build of Paddock has no page; its API is at <code>api/</code>.\n"
)


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media: str
    tag: str


@functools.cache
def _page() -> dict[str, _File]:
    """Return the files by their path below the folder."""
    found: dict[str, _File] = {}

    def walk(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                if entry.name != "__pycache__":
                    walk(entry, f"{prefix}{entry.name}/")
            elif not entry.name.endswith((".py", ".pyc")):
                found[prefix + entry.name] = _file(entry.name, entry.read_bytes())

    walk(files(__package__).joinpath("page"), "")
    return found


def _file(name: str, content: bytes) -> _File:
    suffix = name[name.rfind(".") :]
    media = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return _File(content, media, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _send(request: Request, file: _File) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media)


async def _index(request: Request) -> Response:
    return _send(request, _page().get("index.html") or _file("index.html", _NO_PAGE))


async def _asset(request: Request) -> Response:
    found = _page().get(request.path_params["path"])
    if found is None:
        raise HTTPException(404)
    return _send(request, found)


ROUTES = [Route("/", _index), Route("/assets/{path:path}", _asset)]
