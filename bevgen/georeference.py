"""BEVs as rasters that GIS programs open: GeoTIFF files in the local UTM zone, and footprints.

A BEV is north-up on the plane that touches the ellipsoid at the camera. The UTM zone's grid is
turned against that by the grid's convergence, up to several degrees, and scaled by up to 1 in 2500:
so the picture is resampled once to the grid's own rows and columns. A turned geotransform would
keep its pixels, but many programs ignore the turn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import BevGrid
from bevgen.ground import LocalPlane

if TYPE_CHECKING:
    from rasterio.crs import CRS

SUPPORT = 2  # pixels around a BEV's edge, for what bilinear weights need


@contextmanager
def needs_rasterio(what: str) -> Iterator[None]:
    """Say what to install if rasterio is missing.

    Raises
    ------
    InputError
        In place of ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} needs {error.name}, which is not installed: pip install 'bevgen[geo]'"
        ) from error


def utm_epsg(latitude: float, longitude: float) -> int:
    """EPSG code of the UTM zone (WGS84) of a position; of polar stereographic beyond 84 N, 80 S."""
    if latitude > 84:
        return 32661
    if latitude < -80:
        return 32761
    zone = int((longitude + 180) % 360 // 6) + 1
    return (32600 if latitude >= 0 else 32700) + zone


def local_crs(latitude: float, longitude: float) -> CRS:
    """Coordinate system of the plane that touches the ellipsoid (WGS84) at a position."""
    from rasterio.crs import CRS

    return CRS.from_string(
        f"+proj=ortho +lat_0={latitude!r} +lon_0={longitude!r} +datum=WGS84 +units=m +type=crs"
    )


def write_geotiff(
    path: Path,
    image: NDArray[np.uint8],
    valid: NDArray[np.bool_] | None,
    grid: BevGrid,
    latitude: float,
    longitude: float,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a BEV as a Cloud Optimized GeoTIFF with an alpha band.

    Parameters
    ----------
    path
        Is replaced if it exists.
    image : (S, S, C) uint8
        1 or 3 channels, north up.
    valid : (S, S) bool
        What the panorama shows; all by default. Alpha is 0 elsewhere.
    grid
        The ground that it shows.
    latitude, longitude
        Of the camera, in the BEV's centre.
    tags
        Metadata of the file.

    Raises
    ------
    InputError
        If rasterio is not installed, or there is another number of channels.
    """
    with needs_rasterio("a GeoTIFF"):
        from rasterio import Affine
        from rasterio.warp import Resampling, reproject, transform_bounds
    if image.shape[2] not in (1, 3):
        raise InputError(f"{path}: a GeoTIFF takes 1 or 3 channels, not {image.shape[2]}")
    alpha = np.full(image.shape[:2], 255, np.uint8)
    if valid is not None:
        alpha[~valid] = 0
    source = np.concatenate([np.moveaxis(image, -1, 0), alpha[None]])
    here, half, pixel = local_crs(latitude, longitude), grid.extent / 2, grid.resolution
    crs = f"EPSG:{utm_epsg(latitude, longitude)}"
    bounds = transform_bounds(here, crs, -half, -half, half, half)
    west, south = (math.floor(v / pixel - SUPPORT) * pixel for v in bounds[:2])
    east, north = (math.ceil(v / pixel + SUPPORT) * pixel for v in bounds[2:])
    shape = (round((north - south) / pixel), round((east - west) / pixel))
    target = np.zeros((len(source), *shape), np.uint8)
    transform = Affine(pixel, 0, west, 0, -pixel, north)
    reproject(
        source,
        target,
        src_transform=Affine(pixel, 0, -half, 0, -pixel, half),
        src_crs=here,
        dst_transform=transform,
        dst_crs=crs,
        src_alpha=len(source),
        dst_alpha=len(source),
        resampling=Resampling.bilinear,
        tolerance=0.0,
    )
    _write_raster(path, target, transform, crs, tags or {})


def _write_raster(
    path: Path, bands: NDArray[np.uint8], transform: Any, crs: str, tags: Mapping[str, str]
) -> None:
    """Write grey or red, green, blue, and alpha (B, H, W); the name appears with all of it."""
    import rasterio
    from rasterio.enums import ColorInterp

    part = path.with_name(f".{path.name}.part")
    count, rows, columns = bands.shape
    try:
        with rasterio.open(
            part, "w", driver="COG", count=count, height=rows, width=columns, dtype=bands.dtype,
            crs=crs, transform=transform, compress="deflate", predictor="yes", blocksize=512,
            overview_resampling="average",
        ) as file:  # fmt: skip
            colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
            file.colorinterp = [*(colours if count == 4 else [ColorInterp.gray]), ColorInterp.alpha]
            file.write(bands)
            file.update_tags(**tags)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def footprint(grid: BevGrid, latitude: float, longitude: float) -> list[list[float]]:
    """Corners of a BEV as GeoJSON's ring: longitude and latitude, anticlockwise, first one twice.

    East of the 180th meridian longitudes go on beyond 180, so that the ring stays in one piece.
    """
    half = grid.extent / 2
    x, y = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]).T * half
    latitudes, longitudes = LocalPlane(latitude, longitude).to_geographic(x, y)
    longitudes = longitude + (longitudes - longitude + 180) % 360 - 180
    return np.stack([longitudes, latitudes], axis=1).round(9).tolist()
