"""Everything that decides what a city is and what its pictures show."""

from __future__ import annotations

from dataclasses import dataclass

from bevgen.errors import InputError
from pipelines.citymaker.drives import Driving
from pipelines.citymaker.rig import CAPS
from pipelines.citymaker.styles import DISTRICTS, parse_date

VIEWS = ("panorama", "satellite", "map", "drive")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides the pixels and the tables of a city.

    Parameters
    ----------
    places
        How many, over all districts.
    seed
        Decides everything that is not said here.
    districts
        With places for training, validation and test.
    cross
        Districts of which all places are for the cross-region test.
    heading
        ``north``, or ``random``: where the centre column looks.
    tilt
        Standard deviation of pitch and roll in degrees.
    dates
        YYYY-MM-DD. On the first all panoramas are taken; on each further one those of the test
        places once more.
    satellite_date
        YYYY-MM-DD of the satellite's pictures: other cars, other light.
    tiles
        ``centred``: a tile per place. ``grid``: tiles that overlap by half, as in VIGOR.
    offset
        Metres, with ``centred``: how far a place may be from its tile's centre, each way.
    panorama_width, tile_size, tile_metres
        Pixels, pixels, and metres across.
    validation, test
        Parts of the places in ``districts``.
    drive
        Sequences of frames along streets, in the districts of ``cross`` if there are any.
    drive_frames, drive_step
        Frames of a sequence, and metres between them.
    gps_noise, heading_noise
        Standard deviations of what a sequence's poses.csv says: metres east and north, degrees.
    views
        Which of panorama, satellite, map and drive to draw.
    car
        The panoramas show the car that carries the camera.
    cap
        What covers the nadir of the panoramas: one of `pipelines.citymaker.rig.CAPS`, or nothing.
    lean
        Degrees off the vertical, at most, from which the satellite looks: roofs lean off their
        feet, in each tile another way.
    shift
        Standard deviation in metres, each way, by which satellite tiles lie off from where the
        tables say.
    overhang
        Trees stand along all streets, and hang over them.
    wires
        Wires run above the streets.

    Raises
    ------
    InputError
        If a value makes no sense.
    """

    places: int = 400
    seed: int = 0
    districts: tuple[str, ...] = ("oldtown", "downtown", "suburb", "industrial", "park")
    cross: tuple[str, ...] = ("harbour",)
    heading: str = "north"
    tilt: float = 0.0
    dates: tuple[str, ...] = ("2023-06-04",)
    satellite_date: str = "2022-07-12"
    tiles: str = "centred"
    offset: float = 0.0
    panorama_width: int = 1024
    tile_size: int = 384
    tile_metres: float = 70.0
    validation: float = 0.1
    test: float = 0.25
    drive: int = 0
    drive_frames: int = 40
    drive_step: float = 4.0
    gps_noise: float = 0.0
    heading_noise: float = 0.0
    views: tuple[str, ...] = VIEWS
    car: bool = False
    cap: str = ""
    lean: float = 0.0
    shift: float = 0.0
    overhang: bool = False
    wires: bool = False

    def __post_init__(self) -> None:
        for name in (*self.districts, *self.cross):
            if name not in DISTRICTS:
                raise InputError(f"no district {name!r}; there are {', '.join(DISTRICTS)}")
        names = [*self.districts, *self.cross]
        if len(set(names)) < len(names) or not names:
            raise InputError("name each district once, for training or for the cross-region test")
        if self.places < len(names):
            raise InputError(f"{self.places} places are too few for {len(names)} districts")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise InputError(
                "the parts for validation and test must be 0 or more, together below 1"
            )
        if self.panorama_width < 16 or self.panorama_width % 2 or self.tile_size < 16:
            raise InputError("panoramas need an even width of 16 pixels or more, tiles 16 or more")
        if not 10 <= self.tile_metres <= 400:
            raise InputError(f"tiles are 10 to 400 metres wide, not {self.tile_metres:g}")
        if not 0 <= self.offset <= self.tile_metres / 2:
            raise InputError("a place lies in its tile: offset 0 to half the tile's metres")
        if not 0 <= self.tilt <= 10:
            raise InputError(f"tilt is 0 to 10 degrees, not {self.tilt:g}")
        if self.drive < 0 or self.drive_frames < 2 or not 0.5 <= self.drive_step <= 50:
            raise InputError(
                "drives are 0 or more, of 2 frames or more, 0.5 to 50 metres from one to the next"
            )
        if not (0 <= self.gps_noise <= 50 and 0 <= self.heading_noise <= 180):
            raise InputError("GPS noise is 0 to 50 metres, heading noise 0 to 180 degrees")
        if self.offset and self.tiles == "grid":
            raise InputError("on a grid the places are where they are: leave out the offset")
        if self.cap and self.cap not in CAPS:
            raise InputError(f"no cap {self.cap!r}; there are {', '.join(CAPS)}")
        if not (0 <= self.lean <= 30 and 0 <= self.shift <= 20):
            raise InputError("satellites lean 0 to 30 degrees, and tiles are 0 to 20 metres off")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, not {self.seed}")
        if not self.dates or len(set(self.dates)) < len(self.dates):
            raise InputError("name one date or more, each once")
        for text in (*self.dates, self.satellite_date):
            parse_date(text)

    @property
    def resolution(self) -> float:
        """Metres per pixel of tiles."""
        return self.tile_metres / self.tile_size

    @property
    def driving(self) -> Driving:
        """How drives are taken."""
        noise = (self.gps_noise, self.heading_noise, self.tilt)
        return Driving(self.drive_frames, self.drive_step, *noise)

    @property
    def reach(self) -> float:
        """Metres from a place, east or north, to the farthest edge of a tile that is its own."""
        return self.tile_metres if self.tiles == "grid" else self.tile_metres / 2 + self.offset
