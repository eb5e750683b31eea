"""Decide which part of the sphere an image shows."""

from __future__ import annotations

from bevgen.errors import PanoramaError
from bevgen.geometry import FULL_CIRCLE, FULL_SPHERE, PanoramaView, is_full_sphere
from bevgen.images.metadata import PanoramaInfo

# Panoramas resized for a network are squashed somewhat; more is a mistake.
MAX_SQUASH = 2.0


def panorama_view(
    shape: tuple[int, int], info: PanoramaInfo, vertical_fov: tuple[float, float] | None
) -> PanoramaView:
    """Decide which part of the sphere an image shows.

    Parameters
    ----------
    shape
        Height and width of the image in pixels; more numbers do not matter.
    info
        What is known of it; the crop in it counts.
    vertical_fov
        Top and bottom in degrees from an option or a preset: overrides ``info``.

    Raises
    ------
    PanoramaError
        If nothing says how much of the sphere is in the image, and it is not 2:1 within 1 %.
    InputError
        If ``vertical_fov`` is no field of view.
    """
    height, width = shape[:2]
    horizontal = info.horizontal_fov or FULL_CIRCLE
    vertical = vertical_fov or info.vertical_fov
    if vertical is None:
        if not is_full_sphere(height, width, horizontal[1] - horizontal[0]):
            raise PanoramaError(
                f"{width} x {height} pixels are not 2:1, so it is not known which part of the"
                " sphere they show: say it with GPano metadata, or to bevgen with --vertical-fov"
                " TOP BOTTOM or --preset"
            )
        vertical = FULL_SPHERE
    view = PanoramaView(height, width, vertical, horizontal)
    if vertical_fov is not None:
        degrees = vertical_fov[0] - vertical_fov[1]
        squash = degrees / height * width / (horizontal[1] - horizontal[0])
        if not 1 / MAX_SQUASH < squash < MAX_SQUASH:
            raise PanoramaError(
                f"of {width} x {height} pixels, {degrees:g} degrees from top to"
                f" bottom would make each {squash:.2g} times as high as wide: is it the right"
                " --vertical-fov or --preset?"
            )
    return view
