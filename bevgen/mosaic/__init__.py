"""Frames of a sequence become one map of the ground: read, register, compose, write.

Needs the extra ``mosaic``. Imports run one way: pictures <- frames, pairs <- registration,
composition <- writing.
"""

from bevgen.mosaic.composition import Canvas, Stand, Tile, gains, tiles
from bevgen.mosaic.frames import Frame, Sequence, level_views, read_sequence
from bevgen.mosaic.pictures import LevelViews
from bevgen.mosaic.registration import Prior, Registered, correlations, register

__all__ = [
    "Canvas",
    "Frame",
    "LevelViews",
    "Prior",
    "Registered",
    "Sequence",
    "Stand",
    "Tile",
    "correlations",
    "gains",
    "level_views",
    "read_sequence",
    "register",
    "tiles",
]
