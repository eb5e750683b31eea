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

COMPILE = "from bevgen.images.row_decoder import load; load()"

_loaded, _begun = threading.Event(), threading.Lock()


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


def begin_loading(compile_too: bool) -> None:
    """Load the compiled code in a thread, once; what is not on disk only if ``compile_too``."""
    if not _loaded.is_set() and _begun.acquire(blocking=False):
        threading.Thread(target=_load, args=(compile_too,), daemon=True).start()


def _load(compile_too: bool) -> None:
    start = time.monotonic()
    try:
        from bevgen.compiling import is_kept
        from bevgen.images.jpeg.decoding import decode

        if not is_kept(decode):
            if not compile_too:
                return
            log.info("the decoder of JPEG rows is being compiled; until then Pillow decodes")
            _compile_apart()
        if is_kept(decode):
            load()
            log.info("the decoder of JPEG rows is ready after %.1f s", time.monotonic() - start)
    except Exception as error:  # Pillow can do it all
        log.info("the decoder of JPEG rows cannot be loaded: %s", error)


def _compile_apart() -> None:
    """Compile in a process of low priority, which ends with this one."""
    words = [sys.executable, "-c", f"import os; os.nice(10); {COMPILE}"]
    quiet = subprocess.DEVNULL
    child = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    atexit.register(child.terminate)
    child.wait()
    atexit.unregister(child.terminate)
