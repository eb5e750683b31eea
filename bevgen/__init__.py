"""Street panoramas to bird's-eye views (BEVs): project one image, convert a folder, read shards.

Imports run one way: errors, compiling <- geometry, presets, chw <- kernels, jpeg, metadata <-
project, panorama, shards, schedule <- settings <- existing <- plan <- conversion <- preview,
calibration <- cli. Nothing heavy is imported before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bevgen._version import __version__ as __version__
from bevgen.errors import BevgenError, InputError, PanoramaError, RefusedError, ShardError
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.presets import PRESETS, Preset
from bevgen.project import Projector, project
from bevgen.projection.network_input import to_chw
from bevgen.tables import Pair, PoseRow, read_pairs, read_poses, write_pairs, write_poses

if TYPE_CHECKING:
    from bevgen.calibration import Calibration, calibrate, find_heading, find_pairs, load_view
    from bevgen.conversion.report import Report
    from bevgen.conversion.run import convert
    from bevgen.conversion.settings import BevSettings, ImageSettings
    from bevgen.ground import (
        GroundPoints,
        LocalPlane,
        Uncertainty,
        ground_from_angles,
        ground_position,
        panorama_position,
    )
    from bevgen.shards import ShardSet, merge, verify

__all__ = [
    "PRESETS",
    "BevGrid",
    "BevSettings",
    "BevgenError",
    "Calibration",
    "GroundPoints",
    "ImageSettings",
    "InputError",
    "LocalPlane",
    "Pair",
    "PanoramaError",
    "PanoramaView",
    "Pose",
    "PoseRow",
    "Preset",
    "Projector",
    "RefusedError",
    "Report",
    "ShardError",
    "ShardSet",
    "Uncertainty",
    "calibrate",
    "convert",
    "find_heading",
    "find_pairs",
    "ground_from_angles",
    "ground_position",
    "load_view",
    "merge",
    "panorama_position",
    "project",
    "read_pairs",
    "read_poses",
    "to_chw",
    "verify",
    "write_pairs",
    "write_poses",
]

_LATER = {
    "bevgen.calibration": (
        "Calibration",
        "calibrate",
        "find_heading",
        "find_pairs",
        "load_view",
    ),
    "bevgen.conversion.report": ("Report",),
    "bevgen.conversion.run": ("convert",),
    "bevgen.conversion.settings": ("BevSettings", "ImageSettings"),
    "bevgen.ground": (
        "GroundPoints",
        "LocalPlane",
        "Uncertainty",
        "ground_from_angles",
        "ground_position",
        "panorama_position",
    ),
    "bevgen.shards": ("ShardSet", "merge", "verify"),
}


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'bevgen' has no attribute {name!r}")
