"""Open whatever a map comes as."""

from __future__ import annotations

from pathlib import Path

from georetrieval.data.tiles.rasters import GeoRaster, Raster
from georetrieval.data.tiles.web import Folders, MBTiles, WebRaster
from georetrieval.errors import MapError

ENDINGS = (".tif", ".tiff", ".vrt", ".jp2")
"""Of the files taken from a folder."""


def open_source(source: str, resolution: float) -> list[Raster]:
    """Open a map: one raster, or several of which the first that has data counts.

    Parameters
    ----------
    source
        A file that GDAL reads (GeoTIFF, COG, VRT, ...), a folder of such files, an ``.mbtiles``
        file, or a pattern of files such as ``xyz/{z}/{x}/{y}.png``.
    resolution
        Metres per pixel that are wanted, to choose the zoom of a web map.

    Raises
    ------
    MapError
        If it cannot be used.
    """
    if "{" in source:
        return [WebRaster(Folders(source), resolution)]
    path = Path(source)
    if not path.exists():
        raise MapError(f"{path} does not exist")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
        if not files:
            raise MapError(
                f"{path} holds no maps ({', '.join(ENDINGS)}); tiles of a web map are named by a"
                f" pattern, such as {path}/{{z}}/{{x}}/{{y}}.png"
            )
        return [GeoRaster(file) for file in files]
    if path.suffix.lower() == ".mbtiles":
        return [WebRaster(MBTiles(path), resolution)]
    return [GeoRaster(path)]
