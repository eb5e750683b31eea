"""Street panoramas to bird's-eye views (BEVs): project one image, convert a folder, read shards.

Imports run one way: errors <- geometry, presets, tables <- projection <- project <- images, shards
<- conversion <- calibration, preview <- cli. Nothing heavy is imported before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bevgen._version import __version__ as __version__
from bevgen.errors import (
    BevgenError,
    InputError,
    PanoramaError,
    RefusedError,
    ShardError,
    WriteError,
)
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.locking import only_writer
from bevgen.presets import PRESETS, Preset
from bevgen.project import Projector, project
from bevgen.projection.network_input import to_chw
from bevgen.tables import Pair, PoseRow, read_pairs, read_poses, write_pairs, write_poses
from bevgen.writing import written_whole

if TYPE_CHECKING:
    from bevgen.calibration import Calibration, calibrate, find_heading, find_pairs, load_view
    from bevgen.conversion.generated import Made, Written, write_shards
    from bevgen.conversion.products import make_row
    from bevgen.conversion.report import Report
    from bevgen.conversion.run import convert
    from bevgen.conversion.settings import BevSettings, ImageSettings, settings_from_json
    from bevgen.export import ExportReport, export_images
    from bevgen.ground import (
        GroundPoints,
        LocalPlane,
        Uncertainty,
        ground_from_angles,
        ground_position,
        panorama_position,
    )
    from bevgen.images.decoding import read_image
    from bevgen.images.finding import find_images
    from bevgen.images.metadata import PanoramaInfo, info_from_name, info_from_row
    from bevgen.shards import ShardSet, merge, verify

__all__ = [
    "PRESETS",
    "BevGrid",
    "BevSettings",
    "BevgenError",
    "Calibration",
    "ExportReport",
    "GroundPoints",
    "ImageSettings",
    "InputError",
    "LocalPlane",
    "Made",
    "Pair",
    "PanoramaError",
    "PanoramaInfo",
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
    "WriteError",
    "Written",
    "calibrate",
    "convert",
    "export_images",
    "find_heading",
    "find_images",
    "find_pairs",
    "ground_from_angles",
    "ground_position",
    "info_from_name",
    "info_from_row",
    "load_view",
    "make_row",
    "merge",
    "only_writer",
    "panorama_position",
    "project",
    "read_image",
    "read_pairs",
    "read_poses",
    "settings_from_json",
    "to_chw",
    "verify",
    "write_pairs",
    "write_poses",
    "write_shards",
    "written_whole",
]

_LATER = {
    "bevgen.calibration": (
        "Calibration",
        "calibrate",
        "find_heading",
        "find_pairs",
        "load_view",
    ),
    "bevgen.conversion.generated": ("Made", "Written", "write_shards"),
    "bevgen.conversion.products": ("make_row",),
    "bevgen.conversion.report": ("Report",),
    "bevgen.conversion.run": ("convert",),
    "bevgen.conversion.settings": ("BevSettings", "ImageSettings", "settings_from_json"),
    "bevgen.images.metadata": ("PanoramaInfo", "info_from_name", "info_from_row"),
    "bevgen.images.decoding": ("read_image",),
    "bevgen.images.finding": ("find_images",),
    "bevgen.export": ("ExportReport", "export_images"),
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
