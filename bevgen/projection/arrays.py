"""The arrays that go in and come out, of the host or of a GPU: checked once, before any work."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.projection.backends import cuda_backend

if TYPE_CHECKING:
    from bevgen.projection.cuda import DeviceArray


def is_on_device(array: Any) -> bool:
    """Whether an array says that it lies in a GPU's memory."""
    return hasattr(array, "__cuda_array_interface__") or bool(
        getattr(array, "__cuda_ndarray__", False)  # of Numba's simulator
    )


def host_array(panorama: Any) -> NDArray[Any]:
    """Return an array of the host as NumPy's.

    Raises
    ------
    InputError
        If it is a Pillow image whose values are no intensities, or a masked array.
    """
    mode = getattr(panorama, "mode", None)
    if isinstance(mode, str) and mode not in ("L", "LA", "RGB", "RGBA", "RGBX", "F"):
        raise InputError(
            f"values of a Pillow image of mode {mode} cannot be interpolated: give"
            ' image.convert("RGB")'
        )
    if isinstance(panorama, np.ma.MaskedArray):
        raise InputError(
            "what is masked in a masked array would be drawn: give its .data or .filled(0)"
        )
    return np.asarray(panorama)


def as_batch(image: Any, size: int) -> tuple[Any, tuple[int, ...]]:
    """Return an (N, H, W, C) view of the input, contiguous, and the result's shape.

    Raises
    ------
    InputError
        If shape or dtype cannot be used.
    """
    shape = tuple(image.shape)
    if image.dtype not in (np.uint8, np.float32):
        raise InputError(f"a panorama must be uint8 or float32, not {image.dtype}")
    if len(shape) not in (2, 3, 4) or 0 in shape:
        raise InputError(
            "a panorama must have shape (H, W) or (H, W, C), a batch (N, H, W, C),"
            f" and pixels, not shape {shape}"
        )
    if len(shape) > 2 and not 1 <= shape[-1] <= 4:
        hint = " (channels come last)" if 1 <= shape[-3] <= 4 else ""
        raise InputError(
            f"a panorama must have 1 to 4 channels, not {shape[-1]}{hint}; its shape is {shape}"
        )
    batch = (1, *shape, 1) if len(shape) == 2 else (1, *shape) if len(shape) == 3 else shape
    result = *shape[:-3], size, size, *shape[2:][-1:]
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image).reshape(batch), result
    if not image.contiguous:
        raise InputError("a panorama on the device must be C-contiguous")
    return replace(image, shape=batch), result


def host_result(
    out: NDArray[Any] | None, shape: tuple[int, ...], images: NDArray[Any]
) -> NDArray[Any]:
    """Return the array to write, given or new, of the images' dtype.

    Raises
    ------
    InputError
        If the given one cannot be written as it is.
    """
    if out is None:
        return np.empty(shape, images.dtype)
    _check(out, shape, images.dtype)
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out must be C-contiguous and writeable")
    if np.may_share_memory(out, images):
        raise InputError("out must not overlap the panorama, which is read while it is written")
    return out


def device_result(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[DeviceArray, Any]:
    """Return the array to write, for the kernels and for the user; raises as `host_result`."""
    cuda = cuda_backend()
    if out is None:
        out = cuda.new(shape, dtype)
    elif not is_on_device(out):
        raise InputError("out must be on the device, as the panorama is")
    array = cuda.as_device_array(out)
    _check(array, shape, dtype)
    if not array.contiguous:
        raise InputError("out must be C-contiguous")
    return array, out


def _check(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if tuple(out.shape) != shape or out.dtype != dtype:
        raise InputError(
            f"out must be {dtype} of shape {shape}, not {out.dtype} of shape {tuple(out.shape)}"
        )
