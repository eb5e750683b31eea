"""Drives along streets: sequences of frames with times, and what GPS and compass say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from bevgen.errors import InputError
from bevgen.geometry import Pose
from bevgen.tables import PoseRow
from pipelines.citymaker.places import Place, latitude_longitude
from pipelines.citymaker.streets import Points, Street

ROUNDING = 8.0
"""Metres over which a driver's line is smoothed where streets meet."""

Node = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Driving:
    """How drives are taken.

    Attributes
    ----------
    frames, step
        Frames of a drive, and metres between them.
    gps, heading, tilt
        Standard deviations: of GPS in metres, east and north each, of the compass in degrees, of
        pitch and roll in degrees. Errors of one frame and the next are independent.
    """

    frames: int = 40
    step: float = 4.0
    gps: float = 0.0
    heading: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """One sequence of frames.

    Attributes
    ----------
    name
        District and number.
    frames
        Where the camera was; its centre column looks along the drive.
    seconds : (N,) float64
        Since the start.
    said : (N, 3) float64
        East and north in metres from the district's centre, and heading in degrees: the frames'
        with the errors of GPS and compass.
    """

    name: str
    frames: list[Place]
    seconds: NDArray[np.float64]
    said: NDArray[np.float64]

    def table(self, day: str, *, truth: bool) -> list[PoseRow]:
        """Poses as GPS and compass say, or as they were."""
        start = datetime.fromisoformat(f"{day}T12:00:00")
        rows = []
        for k, (frame, (x, y, heading)) in enumerate(
            zip(self.frames, self.said.tolist(), strict=True)
        ):
            pose = frame.pose
            if truth:
                x, y, heading = frame.x, frame.y, pose.heading
            latitude, longitude = latitude_longitude(frame.district, x, y)
            where = (round(latitude, 8), round(longitude, 8))
            angles = (round(heading, 2), pose.pitch, pose.roll, pose.height)
            time = (start + timedelta(seconds=float(self.seconds[k]))).isoformat(
                "T", "milliseconds"
            )
            rows.append(PoseRow(f"{k:05d}.jpg", frame.id, *angles, *where, f"{time}Z"))
        return rows


def choose_drives(
    district: str,
    streets: list[Street],
    half: tuple[float, float],
    count: int,
    seed: int,
    driving: Driving,
) -> list[Drive]:
    """Drive along the streets of a district, on the right, turning at random at crossings.

    Parameters
    ----------
    district
        Its name.
    streets
        Of the district and around it.
    half
        Half the size, east and north, of the part to stay in; a street may lead out of it a bit.
    count
        How many drives.
    seed
        Decides the way.
    driving
        How.

    Raises
    ------
    InputError
        If no street leads through that part.
    """
    return [_drive(district, streets, half, number, seed, driving) for number in range(count)]


def _drive(
    district: str,
    streets: list[Street],
    half: tuple[float, float],
    number: int,
    seed: int,
    driving: Driving,
) -> Drive:
    """Make the drive of a number."""
    rng = np.random.default_rng([seed, sum(map(ord, district)), 13, number])
    step: NDArray[np.float64] = driving.step * np.arange(driving.frames, dtype=np.float64)
    line = smoothed(way(district, streets, half, step[-1] + 3 * ROUNDING, rng))
    along = step + rng.uniform(0, ROUNDING)
    direction = _at(line, along + 0.25) - _at(line, along - 0.25)
    heading = np.rad2deg(np.arctan2(direction[:, 0], direction[:, 1])).round(2) % 360
    height = round(2.0 + float(np.clip(rng.normal(0, 0.03), -0.08, 0.08)), 3)
    tilts = np.clip(rng.normal(size=(len(along), 2)), -2.5, 2.5).round(2) * driving.tilt + 0.0
    later, gains = round(rng.uniform(-1.5, 1.5), 2), rng.uniform(0.96, 1.04, len(along)).round(3)
    stands = np.column_stack([_at(line, along).round(3), heading])
    frames = [
        Place(f"{district}-{number}-{k:05d}", district, "drive", x, y, pose, later, gain)
        for k, ((x, y, facing), tilt, gain) in enumerate(
            zip(stands.tolist(), tilts.tolist(), gains.tolist(), strict=True)
        )
        for pose in [Pose(height, facing, *tilt)]
    ]
    said = stands + rng.normal(size=stands.shape) * [driving.gps, driving.gps, driving.heading]
    said[:, 2] %= 360
    return Drive(f"{district}-{number}", frames, step / rng.uniform(4, 9), said)


def way(
    district: str,
    streets: list[Street],
    half: tuple[float, float],
    metres: float,
    rng: np.random.Generator,
) -> Points:
    """Choose a way of at least so many metres: points on the right-hand lane, unevenly far apart.

    At a crossing the driver takes any other street that stays inside, and turns round where there
    is none.
    """
    inside = [s for s in streets if (np.abs(s.at(s.length / 2)[0, :2]) < half).all()]
    inside = inside or [s for s in streets if (np.abs(s.points) < half).all(axis=1).any()]
    if not inside:
        raise InputError(f"no street leads through {district}: ask for more places")
    meeting: dict[Node, list[Street]] = {}
    for street in inside:
        for node in _ends(street):
            meeting.setdefault(node, []).append(street)
    street, forward = inside[rng.integers(len(inside))], bool(rng.integers(2))
    pieces, driven = [], -rng.uniform(0, 0.5) * street.length
    skipped = -driven
    while driven < metres:
        pieces.append(lane(street, forward))
        driven += street.length
        node = _ends(street)[forward]
        others = [other for other in meeting[node] if other is not street]
        if others:
            street = others[rng.integers(len(others))]
            forward = _ends(street)[0] == node
        else:
            forward = not forward
    line = _evenly(np.concatenate(pieces))
    return line[round(skipped / 0.5) :]


def _ends(street: Street) -> tuple[Node, Node]:
    """Both ends as keys: streets meet where these are equal."""
    first, last = np.round(street.points[[0, -1]], 3).tolist()
    return (first[0], first[1]), (last[0], last[1])


def lane(street: Street, forward: bool) -> Points:
    """Points (N, 2) every half metre along the right-hand lane, crossings left out."""
    begin, end = street.trims[0], street.length - street.trims[1]
    if end - begin < 1:
        begin, end = 0.3 * street.length, 0.7 * street.length
    along = np.linspace(begin, end, max(round((end - begin) / 0.5), 2))
    side = 0.35 * street.kind.half_width
    points = street.at(along, -side if forward else side)[:, :2]
    return points if forward else points[::-1]


def smoothed(line: Points) -> Points:
    """Round corners: an average over ROUNDING metres, its ends drawn on straight."""
    count = round(ROUNDING / 0.5) | 1
    weights = np.hanning(count + 2)[1:-1]
    on = np.arange(1, count // 2 + 1)[:, None]
    before = line[0] - (line[1] - line[0]) * on[::-1]
    after = line[-1] + (line[-1] - line[-2]) * on
    padded = np.concatenate([before, line, after])
    columns = [np.convolve(c, weights / weights.sum(), mode="valid") for c in padded.T]
    return _evenly(np.stack(columns, axis=1))


def _evenly(line: Points) -> Points:
    """Give the same line with points every half metre."""
    length = float(np.hypot(*np.diff(line, axis=0).T).sum())
    return _at(line, np.arange(0, length, 0.5))


def _at(line: Points, along: NDArray[np.float64]) -> Points:
    """Points of a line at metres along it."""
    distances = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    return np.stack([np.interp(along, distances, c) for c in line.T], axis=1)


def shares(districts: tuple[str, ...], cross: tuple[str, ...], drives: int) -> Iterator[int]:
    """How many of the drives each district gets, in the order of ``districts`` and ``cross``.

    Those of the cross-region test get them all, if there are any: no training place is there.
    """
    chosen = cross or districts
    for name in (*districts, *cross):
        if name not in chosen:
            yield 0
            continue
        share, rest = divmod(drives, len(chosen))
        yield share + (chosen.index(name) < rest)
