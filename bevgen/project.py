"""From panorama pixels to BEV pixels: check the input, plan the lookup once, apply it.

Numba is imported by the first projection, not by the import of this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import BevgenError, DeviceError, InputError
from bevgen.geometry import FULL_SPHERE, BevGrid, PanoramaView, Pose, ep_bev_pixels
from bevgen.projection.network_input import mean_and_std

Compat = Literal["ep-bev"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """Where on the panorama every BEV pixel looks; see `bevgen.projection.kernels` for the layout.

    Attributes
    ----------
    view
        The panorama it reads.
    columns, rows : (size * size,) int32
    averaged : (pixels,) int32
    first : (pixels + 1,) int32
    sample_columns, sample_rows : (samples,) int32
    valid : (size, size) bool
        What the panorama shows.
    """

    view: PanoramaView
    columns: NDArray[np.int32]
    rows: NDArray[np.int32]
    averaged: NDArray[np.int32]
    first: NDArray[np.int32]
    sample_columns: NDArray[np.int32]
    sample_rows: NDArray[np.int32]
    valid: NDArray[np.bool_]


def plan_lookup(
    grid: BevGrid, view: PanoramaView, pose: Pose, antialias: bool, compat: Compat | None
) -> Lookup:
    """Compute the lookup of one grid, view and pose."""
    from bevgen.projection import kernels

    none = np.empty(0, np.int32)
    samples = none, np.zeros(1, np.int32), none, none
    if compat == "ep-bev":
        column, row, valid = ep_bev_pixels(grid, view, pose.height)
        columns, rows = (
            np.floor(np.where(valid, a, 0) * kernels.SUBPIXEL + 0.5).astype(np.int32).ravel()
            for a in (column, row)
        )
        rows[~valid.ravel()] = kernels.HIDDEN
        return Lookup(view, columns, rows, *samples, valid)
    axes: list[float] = pose.world_from_camera().T.ravel().tolist()
    camera = kernels.Camera._make([*axes, float(pose.height)])
    (top, bottom), (left, right) = np.deg2rad(view.vertical_fov), np.deg2rad(view.horizontal_fov)
    lens = kernels.Lens(
        width=view.width,
        height=view.height,
        left=float(left),
        right=float(right),
        top=float(top),
        bottom=float(bottom),
        columns_per_radian=float(view.width / (right - left)),
        rows_per_radian=float(view.height / (top - bottom)),
        wraps=view.wraps,
    )
    resolution = float(grid.resolution)
    columns, rows = kernels.plan_points(grid.size, resolution, camera, lens)
    if antialias:
        samples = kernels.plan_samples(grid.size, resolution, camera, lens, columns, rows)
    valid = (rows != kernels.HIDDEN).reshape(grid.size, grid.size)
    return Lookup(view, columns, rows, *samples, valid)


# About 3 MB each at 512 pixels, 0.2 GB at 4096: of large ones the last alone is kept.
_recent, _last = lru_cache(maxsize=8)(plan_lookup), lru_cache(maxsize=1)(plan_lookup)


def project_view(
    panorama: NDArray[Any],
    grid: BevGrid,
    view: PanoramaView,
    pose: Pose,
    *,
    antialias: bool = True,
    compat: Compat | None = None,
    device: Device = "auto",
    out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Project one panorama of known view and pose, from host memory to host memory.

    Parameters
    ----------
    panorama : (H, W, C) uint8 or float32
        C-contiguous, of the view's size.
    grid, view, pose
        What to draw, what the panorama shows, how the camera stood.
    antialias
        Average where a BEV pixel covers many panorama pixels.
    compat
        ``"ep-bev"`` for the published script's pixels; takes no angles.
    device
        ``"cuda"`` for a GPU, else the CPU.
    out : (size, size, C) of the panorama's dtype, optional
        Where to write; C-contiguous.

    Returns
    -------
    bev : (size, size, C) of the panorama's dtype
    valid : (size, size) bool, shared and read-only

    Raises
    ------
    DeviceError
        If the GPU fails.
    """
    from bevgen.projection import kernels

    lookup, shift = lookup_and_shift(grid, view, pose, antialias, compat)
    bev = (
        np.empty((grid.size, grid.size, panorama.shape[2]), panorama.dtype) if out is None else out
    )
    if device == "cuda":
        from bevgen.projection import cuda

        flat = bev.reshape(1, -1, bev.shape[2])
        try:
            cuda.draw_from_host(panorama[None], iter([(lookup, shift)]), view.wraps, flat)
        except BevgenError:
            raise
        except Exception as error:  # whatever driver and compiler raise
            why = " ".join(str(error).split()) or type(error).__name__
            raise DeviceError(
                f"the GPU failed ({why}): use the device cpu, or try again"
            ) from error
        return bev, lookup.valid
    panorama = panorama.view()
    panorama.flags.writeable = False  # one compiled kernel for read-only and writable arrays
    apply = kernels.apply_to_bytes if panorama.dtype == np.uint8 else kernels.apply_to_floats
    apply(
        panorama,
        lookup.columns,
        lookup.rows,
        lookup.averaged,
        lookup.first,
        lookup.sample_columns,
        lookup.sample_rows,
        shift,
        view.wraps,
        bev.reshape(-1, bev.shape[2]),
    )
    return bev, lookup.valid


def lookup_and_shift(
    grid: BevGrid, view: PanoramaView, pose: Pose, antialias: bool, compat: Compat | None
) -> tuple[Lookup, int]:
    """Lookup, and the columns to add: without tilt, a heading is a mere shift of the panorama."""
    from bevgen.projection.kernels import SUBPIXEL

    plan = _recent if grid.size <= 1024 else _last
    if compat is not None:
        check_compat(compat, view, pose)
        return plan(grid, view, pose, False, compat), 0
    if view.wraps and pose.pitch == 0 and pose.roll == 0:
        lookup = plan(grid, view, replace(pose, heading=0.0), antialias, None)
        turn = view.width * SUBPIXEL
        return lookup, round(-pose.heading / 360 * turn) % turn
    return plan(grid, view, pose, antialias, None), 0


@lru_cache(maxsize=64)
def needed_rows(grid: BevGrid, view: PanoramaView, pose: Pose) -> tuple[int, int]:
    """Rows of the panorama that a projection reads: the first, and the one after the last.

    With whatever options: neighbours and the half pixel of ``compat`` are among them.

    Notes
    -----
    The grid's outline is seen as four arcs of great circles. Elevation (in the camera's frame) has
    its extremes over the grid at a corner, where it stands still along an arc, or straight up or
    down.
    """
    # Anti-aliasing reaches beyond a pixel's own square, as far as its corners if turned.
    half = grid.extent / 2 + 0.25 * grid.resolution
    up = pose.world_from_camera()[:, 2]
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    start = np.column_stack([corners, np.full(4, -pose.height)])
    along = np.roll(start, -1, axis=0) - start
    # Where on start + t along is the derivative of up . ray / |ray| zero?
    a, b = start @ up, along @ up
    aa, ab, bb = ((u * v).sum(axis=1) for u, v in ((start, start), (start, along), (along, along)))
    slope = b * ab - a * bb
    t = np.clip(np.divide(a * ab - b * aa, slope, out=np.zeros(4), where=slope != 0), 0, 1)
    rays = np.concatenate([start, start + t[:, None] * along])
    sines = rays @ up / np.linalg.norm(rays, axis=1)
    highest, lowest = np.degrees(np.arcsin(np.clip([sines.max(), sines.min()], -1, 1)))
    straight = up * (-pose.height / up[2]) if up[2] else np.full(3, np.inf)
    if np.abs(straight[:2]).max() <= half:  # the camera's axis meets the grid
        highest, lowest = (90.0, lowest) if up[2] < 0 else (highest, -90.0)
    top, bottom = view.vertical_fov
    rows = [(top - elevation) / (top - bottom) * view.height for elevation in (highest, lowest)]
    margin = 2  # a neighbour, and the half pixel of compat
    first, last = int(rows[0]) - margin, int(rows[1]) + 1 + margin
    return min(max(first, 0), view.height), min(max(last, 0), view.height)


def check_compat(compat: str, view: PanoramaView, pose: Pose) -> None:
    """Refuse what the published script cannot do.

    Raises
    ------
    InputError
        If ``compat`` is unknown, or the pose has angles, or the view is not the full sphere.
    """
    if compat != "ep-bev":
        raise InputError(f'compat must be "ep-bev" or None, not {compat!r}')
    if pose.heading or pose.pitch or pose.roll:
        raise InputError(
            "compat ep-bev reproduces a script without heading, pitch and roll: leave them at 0,"
            " or leave compat out"
        )
    if not (view.wraps and view.vertical_fov == FULL_SPHERE):
        raise InputError(
            "compat ep-bev takes full spheres only (pad the panorama to 2:1 as the published"
            " script does), or leave compat out"
        )


@dataclass(frozen=True, slots=True)
class Projector:
    """Projects many panoramas with the same settings; see `project` for what they mean.

    The lookup of a panorama size and pose is computed once and kept, so that later panoramas of
    the same size and tilt cost only the pixels. Safe to share between threads.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    height: float = 2.0
    resolution: float = 0.06
    size: int = 512
    heading: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    vertical_fov: tuple[float, float] = FULL_SPHERE
    antialias: bool = True
    compat: Compat | None = None
    device: Device = "auto"

    def __post_init__(self) -> None:
        if self.compat is not None:
            check_compat(self.compat, PanoramaView(1, 1, self.vertical_fov), self.pose)
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f'device must be "auto", "cpu" or "cuda", not {self.device!r}')
        _ = self.grid, self.pose, PanoramaView(1, 1, self.vertical_fov)

    @property
    def grid(self) -> BevGrid:
        """The ground that its BEVs show."""
        return BevGrid(self.size, self.resolution)

    @property
    def pose(self) -> Pose:
        """The pose of a panorama that brings none of its own."""
        return Pose(self.height, self.heading, self.pitch, self.roll)

    def __call__(
        self,
        panorama: Any,
        *,
        height: ArrayLike | None = None,
        heading: ArrayLike | None = None,
        pitch: ArrayLike | None = None,
        roll: ArrayLike | None = None,
        return_valid: bool = False,
        out: Any = None,
    ) -> Any:
        """Project one panorama, or a batch of equal sizes with a pose for each.

        Parameters
        ----------
        panorama : (H, W), (H, W, C) or (N, H, W, C), uint8 or float32, C 1 to 4
            Anything that NumPy takes, or, on a GPU, anything with the CUDA array interface, such
            as a torch tensor: it is projected where it is.
        height, heading, pitch, roll : float or (N,)
            Instead of the projector's own.
        return_valid
            Also return what the panorama shows.
        out : array of the result's shape and dtype, optional
            C-contiguous; written and returned.

        Returns
        -------
        bev : (size, size), (size, size, C) or (N, size, size, C), of the panorama's dtype
            Of a panorama on a GPU an array there, with the CUDA array interface; else NumPy's.
        valid : bool, (size, size) or (N, size, size)
            Only with ``return_valid``; always NumPy's.

        Raises
        ------
        InputError
            If shape, dtype or a pose cannot be used.
        """
        images, shape = _as_batch(self._placed(panorama), self.size)
        poses = self._poses(len(images), height, heading, pitch, roll)
        if isinstance(images, np.ndarray):
            out = target = _host_result(out, shape, images.dtype)
            draw = self._draw_on_host
        else:
            target, draw = _device_result(out, shape, images.dtype), self._draw_on_device
            out = target if out is None else out
        valids = draw(images, poses, target.reshape(len(images), self.size**2, images.shape[3]))
        if not return_valid:
            return out
        return out, np.stack(valids) if len(shape) == 4 else valids[0].copy()

    def to_chw(
        self,
        panorama: Any,
        *,
        mean: ArrayLike = 0.0,
        std: ArrayLike = 1.0,
        dtype: Any = np.float32,
        height: ArrayLike | None = None,
        heading: ArrayLike | None = None,
        pitch: ArrayLike | None = None,
        roll: ArrayLike | None = None,
        out: Any = None,
    ) -> Any:
        """Project a batch in device memory straight to a network's input.

        For use inside a training loop: one pass, nothing leaves the device. On the CPU, pass BEVs
        to `bevgen.to_chw`.

        Parameters
        ----------
        panorama : (N, H, W, C) uint8 or float32 of 0 to 255, with the CUDA array interface
        mean, std : scalar or (C,)
            The result is ``(value / 255 - mean) / std``.
        dtype
            float16 or float32.
        height, heading, pitch, roll : float or (N,)
            Instead of the projector's own.
        out : (N, C, size, size) of that dtype, optional
            On the device, such as a torch tensor; written and returned.

        Returns
        -------
        (N, C, size, size) array with the CUDA array interface

        Raises
        ------
        InputError
            If the array is not on a device, or shape, dtype or a pose cannot be used.
        """
        from bevgen.projection import cuda

        images, shape = _as_batch(self._placed(panorama), self.size)
        floats = (np.float16, np.float32)
        if isinstance(images, np.ndarray) or len(shape) != 4 or np.dtype(dtype) not in floats:
            raise InputError(
                "to_chw takes a batch (N, H, W, C) in device memory and gives float16 or float32;"
                " on the CPU use bevgen.to_chw"
            )
        n, channels = len(images), images.shape[3]
        target = _device_result(out, (n, channels, self.size, self.size), np.dtype(dtype))
        poses = self._poses(n, height, heading, pitch, roll)
        ink = cuda.network_ink(*mean_and_std(channels, mean, std))
        self._draw_on_device(images, poses, target.reshape(n, channels, self.size**2), ink)
        return target if out is None else out

    def _placed(self, panorama: Any) -> Any:
        """Return an array of the host as NumPy's, one of the device as Numba's."""
        if not (hasattr(panorama, "__cuda_array_interface__") or _is_numba_cuda(panorama)):
            return np.asarray(panorama)
        if self.device == "cpu":
            raise InputError("the panorama is on a GPU: copy it to the host, or use device cuda")
        from bevgen.projection import cuda

        return cuda.as_device_array(panorama)

    def _draw_on_host(
        self, images: NDArray[Any], poses: Iterable[Pose], bevs: NDArray[Any]
    ) -> list[NDArray[np.bool_]]:
        """Draw panoramas of the host, by the CPU or by way of the GPU; returns the masks."""
        view = PanoramaView(images.shape[1], images.shape[2], self.vertical_fov)
        if self.device == "cuda":
            from bevgen.projection import cuda

            valids: list[NDArray[np.bool_]] = []
            cuda.draw_from_host(images, self._plan(view, poses, valids), view.wraps, bevs)
            return valids
        return [
            project_view(
                image,
                self.grid,
                view,
                pose,
                antialias=self.antialias,
                compat=self.compat,
                out=bev.reshape(self.size, self.size, -1),
            )[1]
            for image, pose, bev in zip(images, poses, bevs, strict=True)
        ]

    def _draw_on_device(
        self, images: Any, poses: Iterable[Pose], bevs: Any, ink: Any = None
    ) -> list[NDArray[np.bool_]]:
        """Draw panoramas of the device; returns the masks."""
        from bevgen.projection import cuda

        view = PanoramaView(images.shape[1], images.shape[2], self.vertical_fov)
        valids: list[NDArray[np.bool_]] = []
        ink = ink or cuda.plain_ink(images.dtype, images.shape[3])
        cuda.draw(images, self._plan(view, poses, valids), view.wraps, bevs, ink)
        return valids

    def _plan(
        self, view: PanoramaView, poses: Iterable[Pose], valids: list[NDArray[np.bool_]]
    ) -> Iterator[tuple[Lookup, int]]:
        """Yield the lookup and shift of each pose, and note what it shows."""
        for pose in poses:
            planned = lookup_and_shift(self.grid, view, pose, self.antialias, self.compat)
            valids.append(planned[0].valid)
            yield planned

    def _poses(self, n: int, *own: ArrayLike | None) -> Iterable[Pose]:
        """One pose per image: its own values where given, else the projector's."""
        columns = []
        for name, given in zip(("height", "heading", "pitch", "roll"), own, strict=True):
            values = np.asarray(getattr(self, name) if given is None else given, np.float64)
            if values.shape not in ((), (n,)):
                raise InputError(
                    f"{name} must be one number or one for each of the {n} panoramas,"
                    f" not of shape {values.shape}"
                )
            columns.append(np.broadcast_to(values, n).tolist())
        return (Pose(*values) for values in zip(*columns, strict=True))


def _is_numba_cuda(array: Any) -> bool:
    return bool(getattr(array, "__cuda_ndarray__", False))


def _host_result(
    out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the array to write, given or new."""
    if out is None:
        return np.empty(shape, dtype)
    _check_result(out, shape, dtype)
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out must be C-contiguous and writeable")
    return out


def _device_result(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return Numba's view of the array to write, given or new."""
    from bevgen.projection import cuda

    if out is None:
        return cuda.new(shape, dtype)
    array = cuda.as_device_array(out)
    if array is None:
        raise InputError("out must be on the device, as the panorama is")
    _check_result(array, shape, dtype)
    if not array.is_c_contiguous():
        raise InputError("out must be C-contiguous")
    return array


def _check_result(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if tuple(out.shape) != shape or out.dtype != dtype:
        raise InputError(
            f"out must be {dtype} of shape {shape}, not {out.dtype} of shape {tuple(out.shape)}"
        )


def _as_batch(image: Any, size: int) -> tuple[Any, tuple[int, ...]]:
    """(N, H, W, C) view of the input, contiguous, and the result's shape."""
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
    if isinstance(image, np.ndarray):
        image = np.ascontiguousarray(image)
    elif not image.is_c_contiguous():
        raise InputError("a panorama on the device must be C-contiguous")
    if len(shape) == 2:
        return image.reshape(1, *shape, 1), (size, size)
    if len(shape) == 3:
        return image.reshape(1, *shape), (size, size, shape[2])
    return image, (len(image), size, size, image.shape[3])


def project(
    panorama: Any,
    height: float = 2.0,
    resolution: float = 0.06,
    size: int = 512,
    heading: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    vertical_fov: tuple[float, float] = FULL_SPHERE,
    antialias: bool = True,
    compat: Compat | None = None,
    return_valid: bool = False,
    device: Device = "auto",
) -> Any:
    """Turn a panorama into a north-up bird's-eye view of the flat ground around the camera.

    Parameters
    ----------
    panorama : (H, W) or (H, W, C) uint8 or float32, C 1 to 4; or a batch (N, H, W, C)
        Equirectangular; the whole 360 degrees wide.
    height
        Metres from the ground to the camera, above 0.
    resolution
        Ground sample distance in metres per pixel. Only ``height / resolution`` changes the
        picture on flat ground.
    size
        Pixels on each side.
    heading, pitch, roll
        Degrees: compass direction of the centre column, nose up, right side down.
    vertical_fov
        Elevations in degrees of the panorama's upper and lower edge.
    antialias
        Average where a BEV pixel covers many panorama pixels, as it does near the nadir.
    compat
        ``"ep-bev"`` reproduces the pixels of the published script (no anti-aliasing, no angles).
    return_valid
        Also return which BEV pixels the panorama shows; the others are 0.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU for what is in its memory, else the CPU.

    Returns
    -------
    bev : (size, size), (size, size, C) or (N, size, size, C), of the panorama's dtype
        Pixel (i, j) shows the ground at x = (j + 0.5 - size / 2) * resolution metres east and
        y = (size / 2 - i - 0.5) * resolution metres north of the camera.
    valid : (size, size) bool
        Only with ``return_valid``; (N, size, size) for a batch.

    Raises
    ------
    InputError
        If an argument is out of range, or shape or dtype of the panorama cannot be used.

    Notes
    -----
    The flat-ground projection of "Cross-view image geo-localization with Panorama-BEV
    Co-Retrieval Network" (ECCV 2024), section 3.2, with pixel centres at half-integers, columns
    that wrap, and any pose. Whatever stands above the ground is smeared outwards.
    """
    projector = Projector(
        height=height,
        resolution=resolution,
        size=size,
        heading=heading,
        pitch=pitch,
        roll=roll,
        vertical_fov=vertical_fov,
        antialias=antialias,
        compat=compat,
        device=device,
    )
    return projector(panorama, return_valid=return_valid)
