"""From panorama pixels to BEV pixels: check the input once, choose the backend once.

Numba is imported by the first projection, not by the import of this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bevgen.errors import InputError
from bevgen.geometry import FULL_SPHERE, BevGrid, PanoramaView, Pose, are_poses, is_full_sphere
from bevgen.projection.arrays import (
    as_batch,
    device_result,
    host_array,
    host_result,
    is_on_device,
)
from bevgen.projection.backends import cuda_backend, host_backend
from bevgen.projection.network_input import mean_and_std

if TYPE_CHECKING:
    from bevgen.projection.masking import Mask
    from bevgen.projection.planning import Planner

Compat = Literal["ep-bev"]
Device = Literal["auto", "cpu", "cuda"]


def project_view(
    panorama: NDArray[Any],
    grid: BevGrid,
    view: PanoramaView,
    pose: Pose,
    *,
    antialias: bool = True,
    compat: Compat | None = None,
    mask: Mask | None = None,
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
    mask
        Which pixels of the panorama are used; all of them by default.
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
    InputError
        If the mask does not fit the panorama.
    DeviceError
        If the GPU fails.
    """
    bev = (
        np.empty((grid.size, grid.size, panorama.shape[2]), panorama.dtype) if out is None else out
    )
    planner = _planner(grid, view, antialias, compat)
    if compat is not None:
        check_compat(compat, view, pose)
    flat = bev.reshape(1, grid.size**2, panorama.shape[2])
    poses = np.array([[pose.height, pose.heading, pose.pitch, pose.roll]], np.float64)
    host_backend(device).sample_from_host(panorama[None], planner, poses, flat)
    if mask is None:
        return bev, planner.valid(pose)
    return bev, planner.valid(pose) & ~_hide(mask, planner, pose, bev)


def _planner(grid: BevGrid, view: PanoramaView, antialias: bool, compat: Compat | None) -> Planner:
    from bevgen.projection.planning import Planner

    return Planner(grid, view, bool(antialias) and compat is None, compat is not None)


@lru_cache(maxsize=64)
def _kept_planner(
    size: int,
    resolution: float,
    height: int,
    width: int,
    fov: tuple[float, float],
    antialias: bool,
    compat: Compat | None,
) -> Planner:
    """Return the planner of a projector's settings, checked once for many calls."""
    view = PanoramaView(height, width, fov)
    return _planner(BevGrid(size, resolution), view, antialias, compat)


def _hide(mask: Mask, planner: Planner, pose: Pose, bev: NDArray[Any]) -> NDArray[np.bool_]:
    """Set to 0 what a mask hides of a BEV, and return those pixels (size, size)."""
    from bevgen.projection.masking import hidden_by

    hidden = hidden_by(mask, planner, pose)
    bev.reshape(*hidden.shape, -1)[hidden] = 0
    return hidden


def check_flag(name: str, value: object) -> None:
    """Refuse what Python takes for true and nobody means, such as ``"no"``.

    Raises
    ------
    InputError
        If it is neither True nor False.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, not {value!r}")


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
    vertical_fov: tuple[float, float] | None = None
    antialias: bool = True
    compat: Compat | None = None
    device: Device = "auto"
    mask: Any = field(default=None, compare=False)
    _mask: Mask | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mask is not None:
            from bevgen.projection.masking import Mask

            use = self.mask
            if is_on_device(use):
                use = cuda_backend().to_host(use)
            object.__setattr__(self, "_mask", Mask.of(use))
        if self.compat is not None:
            check_compat(
                self.compat, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE), self.pose
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f'device must be "auto", "cpu" or "cuda", not {self.device!r}')
        check_flag("antialias", self.antialias)
        _ = self.grid, self.pose, PanoramaView(1, 1, self.vertical_fov or FULL_SPHERE)

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
        images, shape = as_batch(self._placed(panorama), self.size)
        planner = self._planner(images)
        poses = self._poses(planner.view, images.shape[0], height, heading, pitch, roll)
        hidden: Any = None
        if isinstance(images, np.ndarray):
            out = host_result(out, shape, images)
            bevs = out.reshape(len(images), self.size**2, images.shape[3])
            host_backend(self.device).sample_from_host(images, planner, poses, bevs)
            if self._mask is not None:
                each = zip(poses.tolist(), bevs, strict=True)
                hidden = np.stack([_hide(self._mask, planner, Pose(*p), bev) for p, bev in each])
        else:
            target, out = device_result(out, shape, images.dtype)
            cuda_backend().sample(images, planner, poses, target)
            if self._mask is not None:
                hidden = cuda_backend().hide(self._mask, planner, poses, target)
        if not return_valid:
            return out
        valid = np.stack([planner.valid(Pose(*pose)) for pose in poses.tolist()])
        if hidden is not None:
            valid &= ~(hidden if isinstance(hidden, np.ndarray) else hidden.copy_to_host())
        return out, valid if len(shape) == 4 else valid[0]

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
        images, shape = as_batch(self._placed(panorama), self.size)
        floats = (np.float16, np.float32)
        if isinstance(images, np.ndarray) or len(shape) != 4 or np.dtype(dtype) not in floats:
            raise InputError(
                "to_chw takes a batch (N, H, W, C) in device memory and gives float16 or float32;"
                " on the CPU use bevgen.to_chw"
            )
        n, channels = images.shape[0], images.shape[3]
        target, out = device_result(out, (n, channels, self.size, self.size), np.dtype(dtype))
        planner = self._planner(images)
        poses = self._poses(planner.view, n, height, heading, pitch, roll)
        scaling = mean_and_std(channels, mean, std)
        cuda_backend().sample(images, planner, poses, target, scaling)
        if self._mask is not None:
            cuda_backend().hide(self._mask, planner, poses, target, scaling)
        return out

    def _placed(self, panorama: Any) -> Any:
        """Return an array of the host as NumPy's, one of the device as Numba's."""
        if not is_on_device(panorama):
            return host_array(panorama)
        if self.device == "cpu":
            raise InputError("the panorama is on a GPU: copy it to the host, or use device cuda")
        return cuda_backend().as_device_array(panorama)

    def _planner(self, images: Any) -> Planner:
        height, width = images.shape[1:3]
        if self.vertical_fov is None and not is_full_sphere(height, width):
            raise InputError(
                f"{width} x {height} pixels are not 2:1, so it is not known which part of the"
                " sphere they show: say it by vertical_fov=(top, bottom)"
            )
        top, bottom = self.vertical_fov or FULL_SPHERE
        return _kept_planner(
            self.size, self.resolution, height, width, (top, bottom), self.antialias, self.compat
        )

    def _poses(self, view: PanoramaView, n: int, *own: ArrayLike | None) -> NDArray[np.float64]:
        """Height, heading, pitch and roll per image, (n, 4): its own where given, checked."""
        poses = np.empty((n, 4))
        for k, (name, given) in enumerate(
            zip(("height", "heading", "pitch", "roll"), own, strict=True)
        ):
            if given is None:
                poses[:, k] = getattr(self, name)
                continue
            values = np.asarray(given, np.float64)
            if values.shape not in ((), (n,)):
                raise InputError(
                    f"{name} must be one number or one for each of the {n} panoramas,"
                    f" not of shape {values.shape}"
                )
            poses[:, k] = values
        if any(given is not None for given in own):
            for row in poses[~are_poses(poses)][:1].tolist():
                Pose(*row)  # raises, and says why
            if self.compat is not None:
                for row in poses.tolist():
                    check_compat(self.compat, view, Pose(*row))
        return poses


def project(
    panorama: Any,
    height: float = 2.0,
    resolution: float = 0.06,
    size: int = 512,
    heading: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    vertical_fov: tuple[float, float] | None = None,
    antialias: bool = True,
    compat: Compat | None = None,
    return_valid: bool = False,
    device: Device = "auto",
    mask: Any = None,
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
        Elevations in degrees of the panorama's upper and lower edge; None for the whole sphere,
        and then the panorama must be 2:1.
    antialias
        Average where a BEV pixel covers many panorama pixels, as it does near the nadir.
    compat
        ``"ep-bev"`` reproduces the pixels of the published script (no anti-aliasing, no angles).
    return_valid
        Also return which BEV pixels the panorama shows; the others are 0.
    device
        ``"cpu"``, ``"cuda"``, or ``"auto"``: a GPU for what is in its memory, else the CPU.
    mask : (h, w) bool or uint8, optional
        False, or below 128, where the panorama shows the camera's car or a cap: as if it showed
        nothing there. Of the panorama's size, or proportional to it.

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
        mask=mask,
    )
    return projector(panorama, return_valid=return_valid)
