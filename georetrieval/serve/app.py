"""The page and what it asks for, as a Starlette application."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from bevgen import BevgenError, InputError, PanoramaError, PanoramaInfo, info_from_name
from georetrieval.errors import GeoretrievalError
from georetrieval.localization import Location, Locator, Photo, Prior, open_photo
from georetrieval.serve.pictures import (
    bounds,
    cut_out,
    data_uri,
    extent,
    jpeg,
    tiles_in_view,
)
from georetrieval.serve.upload import UploadError, received, refuse_other_sites

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
TOP = 5
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:;"
    " style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(
    locator: Locator,
    *,
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]"),
    max_bytes: int = 64_000_000,
) -> Starlette:
    """Make the application.

    Parameters
    ----------
    locator
        Answers; one photo at a time.
    hosts
        Names in the Host header that are served: a page of elsewhere that has its name point here
        gets nothing.
    max_bytes
        Of a photo.
    """
    page = _Page(locator, max_bytes)
    return Starlette(
        routes=[
            Route("/", page.show),
            Route("/locate", page.locate, methods=["POST"]),
            Route("/tiles", page.tiles),
            Route("/tile/{row:int}", page.tile),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
        exception_handlers={UploadError: _refusal}
        | dict.fromkeys((GeoretrievalError, BevgenError, OSError), _failure),
    )


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, UploadError)
    return JSONResponse({"error": str(error)}, error.status, HEADERS)


async def _failure(request: Request, error: Exception) -> Response:
    """Say what failed here, such as a full disk, to the user and to whoever runs this."""
    sentence = (isinstance(error, OSError) and error.strerror) or str(error)
    log.error("%s: %s", request.url.path, sentence)
    return JSONResponse({"error": sentence}, 500, HEADERS)


class _Page:
    """What the routes do; work is done in a thread, one photo at a time."""

    def __init__(self, locator: Locator, max_bytes: int) -> None:
        self.locator, self.index, self.max_bytes = locator, locator.index, max_bytes
        self.templates = Jinja2Templates(directory=HERE / "templates")
        self.one_at_a_time = anyio.Lock()

    async def show(self, request: Request) -> Response:
        """Return the page."""
        about = {
            "tiles": len(self.index),
            "view": extent(self.index),
            "kind": self.index.header.tiles.kind,
            "megabytes": round(self.max_bytes / 1e6),
        }
        return self.templates.TemplateResponse(request, "page.html", about, headers=HEADERS)

    async def tiles(self, request: Request) -> Response:
        """Return which tiles make the map of a view."""
        try:
            sides = ("west", "south", "east", "north")
            west, south, east, north = (float(request.query_params[name]) for name in sides)
        except (KeyError, ValueError):
            raise HTTPException(400, "west, south, east and north are degrees") from None
        found = tiles_in_view(self.index, west, south, east, north)
        return JSONResponse(found, headers=HEADERS)

    async def tile(self, request: Request) -> Response:
        """Return the picture of a tile."""
        row = request.path_params["row"]
        if not (row < len(self.index.ids) and self.index.kept[row]):
            raise HTTPException(404, "no such tile")
        try:
            data, kind = await anyio.to_thread.run_sync(self._tile, row)
        except GeoretrievalError as error:
            raise HTTPException(404, str(error)) from error
        return Response(data, media_type=f"image/{kind}", headers=HEADERS)

    def _tile(self, row: int) -> tuple[bytes, str]:
        pixels, valid = self.index.tile(row), self.index.tile_valid(row)
        return (jpeg(pixels, 384), "jpeg") if valid.all() else (cut_out(pixels, valid), "webp")

    async def locate(self, request: Request) -> Response:
        """Take in a photo and answer."""
        refuse_other_sites(request)
        prior = _prior(request.query_params.get("heading", ""))
        name = PurePosixPath(request.query_params.get("name", "photo").replace("\\", "/")).name
        async with received(request, self.max_bytes) as path, self.one_at_a_time:
            if await request.is_disconnected():
                raise UploadError(400, "nobody waits for the answer any more")
            answer = await anyio.to_thread.run_sync(self._answer, path, name, prior)
        return JSONResponse(answer, headers=HEADERS)

    def _answer(self, path: Path, name: str, prior: Prior) -> dict[str, Any]:
        try:
            sent = open_photo(path)
            photo = Photo(
                name, sent.pixels, PanoramaInfo(), sent.file.fallback(info_from_name(name))
            )
            location = self.locator.locate(photo, prior=prior, top=TOP)
            return self._pictured(photo, location)
        except PanoramaError as error:
            raise UploadError(422, f"{name}: {error}") from error

    def _pictured(self, photo: Photo, location: Location) -> dict[str, Any]:
        """Add pictures and places on the map to an answer."""
        answer = location.to_json()
        for candidate in answer["candidates"]:
            candidate["bounds"] = bounds(self.index, candidate["row"])
        answer["photo"] = data_uri(jpeg(photo.pixels, 960))
        settings = self.locator.views.bev_settings
        if settings is not None and location.best is not None:
            bev = self.locator.views.bev(photo, location.best.heading or 0.0)
            across = self.index.header.tiles.width
            answer["bev"] = data_uri(cut_out(*bev), "webp")
            answer["bev_share"] = settings.grid.extent / across if across else 1.0
            latitude, longitude = self.index.positions[location.best.row]
            (south, west), (north, east) = answer["candidates"][0]["bounds"]
            right = (location.best.longitude - longitude + 180) % 360 - 180
            answer["bev_right"] = right / (east - west)
            answer["bev_up"] = (location.best.latitude - latitude) / (north - south)
        return answer


def _prior(heading: str) -> Prior:
    """Read what the page says of the heading: nothing, the word unknown, or degrees."""
    if not heading:
        return Prior()
    if heading == "unknown":
        return Prior(heading="unknown")
    try:
        degrees = float(heading)
    except ValueError:
        raise UploadError(400, f"the heading is a number of degrees, not {heading!r}") from None
    try:
        return Prior(heading=degrees)
    except InputError as error:
        raise UploadError(400, str(error)) from None
