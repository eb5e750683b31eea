"""An index of reference tiles: vectors on disk, searched exactly or by approximation.

``files <- {exact, approximate} <- opening <- parts <- building``
"""

from georetrieval.retrieval.index.building import add_references, build_index, remove_tiles
from georetrieval.retrieval.index.files import IndexHeader, ModelKey, Tiles
from georetrieval.retrieval.index.opening import Index, Nearest

__all__ = [
    "Index",
    "IndexHeader",
    "ModelKey",
    "Nearest",
    "Tiles",
    "add_references",
    "build_index",
    "remove_tiles",
]
