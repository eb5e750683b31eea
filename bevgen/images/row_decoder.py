"""When the decoder of JPEG rows is there: loaded in the background, compiled by a process apart.

Compiling takes ten to twenty seconds, in which this process would stand still now and then. So
another one does it, and what it leaves on disk is loaded here; until then others decode.
"""

from __future__ import annotations

import atexit
import io
import logging
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image

log = logging.getLogger(__name__)

WORTH_LOADING, WORTH_COMPILING = 32, 100
"""Images for which that takes less time than it saves, now or, once compiled, later."""

_COMPILE = "import os; os.nice(10); from bevgen.images.row_decoder import load; load()"
_loaded, _ending, _begun = threading.Event(), threading.Event(), threading.Lock()


def load() -> None:
    """Load the compiled code, or compile it, which takes long."""
    from bevgen.images.jpeg.decoding import decode_rows

    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 32, 3), np.uint8)).save(file, "JPEG")
    decode_rows(file.getvalue(), 0, 16)
    _loaded.set()


def is_loaded() -> bool:
    """Whether `decode_rows` starts at once."""
    return _loaded.is_set()


def begin_loading(images: int) -> None:
    """Load the compiled code in a thread, once, if it is worth it for so many images."""
    if images >= WORTH_LOADING and not is_loaded() and _begun.acquire(blocking=False):
        thread = threading.Thread(target=_load, args=(images,), daemon=True)
        # Python must not end while it loads machine code.
        atexit.register(lambda: (_ending.set(), thread.join()))
        thread.start()


def _load(images: int) -> None:
    start = time.monotonic()
    try:
        from bevgen.compiling import is_kept
        from bevgen.images.jpeg.decoding import decode

        if not is_kept(decode) and images >= WORTH_COMPILING:
            log.info("the decoder of JPEG rows is being compiled; until then Pillow decodes")
            _compile_apart()
        if is_kept(decode) and not _ending.is_set():
            load()
            log.info("the decoder of JPEG rows is ready after %.1f s", time.monotonic() - start)
    except Exception as error:  # Pillow can do it all
        log.info("the decoder of JPEG rows cannot be loaded: %s", error)


def _compile_apart() -> None:
    """Compile in a process of low priority, which ends with this one."""
    words, quiet = [sys.executable, "-c", _COMPILE], subprocess.DEVNULL
    child = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    while child.poll() is None:
        if _ending.wait(0.1):
            child.terminate()
            child.wait()
