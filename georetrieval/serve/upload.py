"""Take in a file that somebody sends: bounded, into a temporary folder, never under its name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import anyio
from starlette.requests import ClientDisconnect, Request


class UploadError(Exception):
    """A request that is not served: status, and a sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another site sends to this one.

    Raises
    ------
    UploadError
        If the request says that it comes from elsewhere.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise UploadError(403, "photos are taken from this page alone, not from another site")


@asynccontextmanager
async def received(request: Request, limit: int) -> AsyncIterator[Path]:
    """Store the request's body in a temporary file, which is gone afterwards.

    Parameters
    ----------
    request
        Its body is the file and nothing else.
    limit
        Bytes.

    Raises
    ------
    UploadError
        If it is empty, cut off, or larger; no more than ``limit`` bytes are ever read.
    """
    too_large = UploadError(
        413, f"the file is larger than {limit / 1e6:.0f} MB: send a smaller one"
    )
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise too_large
    with TemporaryDirectory(prefix="georetrieval-") as folder:
        path = Path(folder, "photo")
        size = 0
        async with await anyio.open_file(path, "wb") as file:
            try:
                async for block in request.stream():
                    size += len(block)
                    if size > limit:
                        raise too_large
                    await file.write(block)
            except ClientDisconnect as error:  # which nobody hears
                raise UploadError(400, "the file was not sent to its end") from error
        if not size:
            raise UploadError(400, "nothing was sent: choose a panorama")
        yield path
