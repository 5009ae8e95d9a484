"""The pages for people: the status page with its files, its JSON API, and the player, all behind one door."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import flask

import logs
from errors import ConfigError
from status.access import Access, Refusal
from status.player import Player

log = logs.get_logger(__name__)

INDEX = "index.html"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

Json = dict[str, Any]


class PageFile(NamedTuple):
    """One file of the page, as it is served."""

    content: bytes
    content_type: str
    etag: str


def read_page(folder: str) -> dict[str, PageFile]:
    """Read the files of the page, each by its name; others in the folder are not served.

    Raises:
        ConfigError: the page is not there.
    """
    found: dict[str, PageFile] = {}
    try:
        for name in sorted(os.listdir(folder)):
            content_type = _TYPES.get(os.path.splitext(name)[1])
            if content_type and not name.startswith("."):
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                found[name] = PageFile(content, content_type, hashlib.sha256(content).hexdigest()[:32])
    except OSError as error:
        raise ConfigError([_missing(folder, error.strerror or str(error))]) from error
    if INDEX not in found:
        raise ConfigError([_missing(folder, f"it has no {INDEX}")])
    return found


def _missing(folder: str, reason: str) -> str:
    return f"The status page in {folder} cannot be read ({reason}): install it again, or set STATUS_PAGE=off."


def create_pages(
    *,
    files: Mapping[str, PageFile],
    access: Access,
    status: Callable[[], Json],
    stream: Callable[[str], Json | None],
    player: Player,
) -> flask.Blueprint:
    """Make the pages for people.

    Parameters:
        files: of the page, from `read_page`.
        access: decides who may see them.
        status: gives the document of `/api/status`.
        stream: gives one stream as the API shows it, by its id; None when it is not known.
        player: answers `/play/<id>`.
    """
    pages = flask.Blueprint("pages", __name__)

    @pages.before_request
    def check() -> flask.Response | None:
        address = flask.request.remote_addr or ""
        refusal = access.refusal(address, _lower(flask.request.headers))
        return _refused(refusal, address) if refusal else None

    @pages.get("/")
    @pages.get("/<name>")
    def show_file(name: str = INDEX) -> flask.Response:
        file = files.get(name)
        return _file(file) if file else _answer_text("There is no such page.", HTTPStatus.NOT_FOUND)

    @pages.get("/api/status")
    def show_status() -> flask.Response:
        return _json(status(), HTTPStatus.OK)

    @pages.get("/api/streams/<path:stream_id>")
    def show_stream(stream_id: str) -> flask.Response:
        found = stream(stream_id)
        if found is None:
            return _answer_json("No stream of this id is in the list of /api/status.", HTTPStatus.NOT_FOUND)
        return _json(found, HTTPStatus.OK)

    @pages.get("/play/<path:stream_id>")
    def play(stream_id: str) -> flask.Response:
        return player.answer(stream_id, flask.request)

    return pages


def _refused(refusal: Refusal, address: str) -> flask.Response:
    if refusal.status == HTTPStatus.UNAUTHORIZED and "Authorization" in flask.request.headers:
        log.warning("wrong password for the status page", address=address)
    answer = _answer_json if flask.request.path.startswith("/api/") else _answer_text
    reply = answer(refusal.reason, refusal.status, refusal.headers)
    if flask.request.headers.get("Sec-Fetch-Dest") == "empty":  # a script of the page asks, every 2 s
        # Nobody clicked: with a scheme that browsers know, each question would open their window for it.
        challenge = reply.headers.pop("WWW-Authenticate", None)
        if challenge:
            reply.headers["WWW-Authenticate"] = f"X-{challenge}"
    return reply


def _file(file: PageFile) -> flask.Response:
    headers = {"Content-Type": file.content_type, "ETag": f'"{file.etag}"', "Cache-Control": "no-cache"}
    if flask.request.if_none_match.contains_weak(file.etag):
        return flask.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    return flask.Response(file.content, headers=headers)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _json(document: Json, status: int, headers: Mapping[str, str] | None = None) -> flask.Response:
    body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    return flask.Response(body, status, headers, content_type="application/json")


def _answer_json(reason: str, status: int, headers: Mapping[str, str] | None = None) -> flask.Response:
    return _json({"error": reason}, status, headers)


def _answer_text(reason: str, status: int, headers: Mapping[str, str] | None = None) -> flask.Response:
    return flask.Response(f"{reason}\n", status, headers, content_type="text/plain; charset=utf-8")
