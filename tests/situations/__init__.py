"""What goes wrong on users' machines besides files, brought about and looked at."""

from tests.situations import disks, files, surroundings, together, weights
from tests.situations.frame import Ground as Ground
from tests.situations.frame import Situation as Situation

SITUATIONS: list[Situation] = [
    situation
    for module in (together, disks, files, weights, surroundings)
    for situation in module.situations()
]
