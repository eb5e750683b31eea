"""Rasters as GDAL reads them: a window of RGBA pixels at a time, in any thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from georetrieval.data.tiles.places import Box
from georetrieval.errors import MapError

Pixels = NDArray[np.uint8]
OUTLINE = 21
"""Points on each side of a raster by which its bounds in degrees are found."""


class Raster(Protocol):
    """A georeferenced picture.

    Attributes
    ----------
    name
        For messages.
    crs
        Of its coordinates.
    transform
        From pixels (column, row, with corners at integers) to coordinates.
    shape
        Rows and columns.
    period
        After how many coordinates eastwards the Earth repeats itself; None where it does not.
    goes_around
        Whether columns beyond its sides can be read, as those of the other side.
    box
        What it covers, in degrees.
    """

    name: str
    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    period: float | None
    goes_around: bool
    box: Box

    def read(self, rows: tuple[int, int], columns: tuple[int, int], shrink: int) -> Pixels:
        """Read rows and columns (first, last exclusive) as (H, W, 4), averaged ``shrink`` fold.

        Alpha is 0 where there are no data. The window lies within the raster, but for columns of
        one that goes around.
        """
        ...


class GeoRaster:
    """A raster file of GDAL's; each thread has it open for itself.

    Parameters
    ----------
    path
        GeoTIFF, COG, VRT or whatever else GDAL reads.

    Raises
    ------
    MapError
        If it cannot be read, is not georeferenced, or has no colours of 8 bits.
    """

    goes_around = False

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._local = threading.local()
        with self._opened() as file:
            _check(file, path)
            self.crs = CRS.from_user_input(file.crs)
            self.transform: Affine = file.transform
            self.shape = (file.height, file.width)
            self._bands = _colour_bands(file)
            self._colours = _palette(file)
        self.period = 360.0 if self.crs.is_geographic else mercator_period(self.crs)
        self.box = box_of(self.crs, self.transform, self.shape)

    def read(self, rows: tuple[int, int], columns: tuple[int, int], shrink: int) -> Pixels:
        """See `Raster`."""
        if not hasattr(self._local, "file"):
            self._local.file = self._opened()
        file = self._local.file
        window = Window.from_slices(rows, columns)
        shape = (-(-(rows[1] - rows[0]) // shrink), -(-(columns[1] - columns[0]) // shrink))
        average = Resampling.average if shrink > 1 else Resampling.nearest
        if self._colours is not None:
            indices = file.read(1, window=window, out_shape=shape)  # a palette has no averages
            pixels = self._colours[indices]
        else:
            bands = file.read(self._bands, window=window, out_shape=shape, resampling=average)
            pixels = np.moveaxis(bands, 0, 2)
        out = np.empty((*shape, 4), np.uint8)
        out[..., :3] = pixels[..., :3]
        out[..., 3] = file.dataset_mask(window=window, out_shape=shape, resampling=average)
        if self._colours is not None:
            out[..., 3] = np.minimum(out[..., 3], pixels[..., 3])
        return out

    def _opened(self) -> rasterio.DatasetReader:
        try:
            return rasterio.open(self.name)
        except RasterioError as error:
            raise MapError(f"{self.name} cannot be read as a map: {error}") from error


def _check(file: rasterio.DatasetReader, path: Path) -> None:
    if file.crs is None:
        raise MapError(
            f"{path} has no coordinate system: say it with `gdal_edit.py -a_srs EPSG:CODE {path}`"
        )
    if file.transform.b or file.transform.d:
        raise MapError(
            f"{path} has a rotated geotransform: bring it north up with `gdalwarp {path} new.tif`"
        )
    if file.transform == Affine.identity():
        raise MapError(f"{path} is not georeferenced: it says no position of its pixels")
    if any(kind != "uint8" for kind in file.dtypes):
        raise MapError(
            f"{path} has {file.dtypes[0]} pixels: scale it to 8 bits with `gdal_translate -ot Byte"
            " -scale`"
        )


def _colour_bands(file: rasterio.DatasetReader) -> list[int]:
    """Red, green and blue by what they are called, else the first three; grey three times."""
    named = {kind: band for band, kind in zip(file.indexes, file.colorinterp, strict=True)}
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in named for colour in colours):
        return [named[colour] for colour in colours]
    plain = [b for b, kind in zip(file.indexes, file.colorinterp, strict=True)
             if kind is not ColorInterp.alpha]  # fmt: skip
    return plain[:3] if len(plain) >= 3 else plain[:1] * 3


def _palette(file: rasterio.DatasetReader) -> NDArray[np.uint8] | None:
    if file.colorinterp[0] is not ColorInterp.palette:
        return None
    colours = np.zeros((256, 4), np.uint8)
    for index, colour in file.colormap(1).items():
        colours[index] = colour
    return colours


def mercator_period(crs: CRS) -> float | None:
    """Metres around the Earth in a projection whose columns are meridians; None in any other."""
    operation = crs.coordinate_operation
    method = operation.method_name.lower() if operation is not None else ""
    if "mercator" not in method or "transverse" in method or "oblique" in method:
        return None
    x = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform
    return 4 * (x(90, 0)[0] - x(0, 0)[0])


def box_of(crs: CRS, transform: Affine, shape: tuple[int, int]) -> Box:
    """Bounds in degrees of a raster, by points on its outline and inside."""
    u, v = np.meshgrid(*(np.linspace(0, n, OUTLINE) for n in (shape[1], shape[0])))
    x = transform.a * u.ravel() + transform.b * v.ravel() + transform.c
    y = transform.d * u.ravel() + transform.e * v.ravel() + transform.f
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    longitude, latitude = (np.asarray(values) for values in to_degrees.transform(x, y))
    good = np.isfinite(longitude + latitude)
    if not good.any():
        raise MapError("its coordinates lie outside of its coordinate system")
    middle = longitude[good][good.sum() // 2]
    around = (longitude[good] - middle + 180) % 360 - 180
    whole = crs.is_geographic and shape[1] * abs(transform.a) >= 360
    south, north = float(latitude[good].min()), float(latitude[good].max())
    if whole:
        return -180.0, south, 180.0, north
    west, east = ((middle + end + 180) % 360 - 180 for end in (around.min(), around.max()))
    return float(west), south, float(east), north
