"""Reference tiles cut from maps: GeoTIFF, VRT and COG, folders of them, XYZ tiles and MBTiles.

``places <- rasters <- web <- sources <- cutting <- making``. Needs the extra ``geo``.
"""

from georetrieval.data.tiles.making import TileSettings, make_tiles
from georetrieval.data.tiles.sources import open_source

__all__ = ["TileSettings", "make_tiles", "open_source"]
