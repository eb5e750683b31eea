"""Work on all cores: NumPy, SciPy's transforms, OpenCV and kernels let other threads go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Call a function for each item, on all cores; give the results in the items' order.

    Results wait until they are taken, so they should be small. What has not begun is left when the
    caller stops, as by Ctrl-C.
    """
    pool = ThreadPoolExecutor(cv2.getNumberOfCPUs())
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
