"""Street panoramas to bird's-eye views (BEVs): project one image, convert a folder, read shards.

Imports run one way: errors <- geometry, presets <- kernels <- project, panorama, shards, schedule
<- plan <- convert <- preview <- cli. Nothing heavy is imported before it is needed.
"""

from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.presets import PRESETS, Preset
from bevgen.project import Projector, project

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "BevGrid",
    "PanoramaView",
    "Pose",
    "Preset",
    "Projector",
    "project",
]
