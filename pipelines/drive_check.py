"""Check a mosaic of one of the city's drives: poses against the truth, ground against rays.

python -m pipelines.drive_check drives/ downtown-0 --poses refined.csv --mosaic street.tif
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer

from bevgen.commands import PATH
from bevgen.ground import LocalPlane
from bevgen.tables import PoseRow, read_poses
from pipelines.citymaker.dataset import plan, prepare
from pipelines.citymaker.places import latitude_longitude, metres_per_degree
from pipelines.citymaker.render import look
from pipelines.citymaker.settings import Settings
from pipelines.citymaker.styles import light_of

Array = NDArray[np.float64]

AROUND = 8.0  # metres to each side of a frame in which the ground is compared


@dataclass(frozen=True, slots=True)
class PoseErrors:
    """How far poses are off, (N - 1,) or (N,) each.

    ``step`` and ``turn``: from one frame to the next, in metres and degrees. ``whole``: metres
    when all are laid onto the truth together.
    """

    step: Array
    turn: Array
    whole: Array


def stands(rows: list[PoseRow], plane: LocalPlane) -> tuple[Array, Array]:
    """Metres (N, 2) and headings (N,)."""
    where = np.array([(row.latitude, row.longitude) for row in rows], float)
    points = np.stack(plane.from_geographic(where[:, 0], where[:, 1]), axis=1)
    return points, np.array([row.heading for row in rows], float)


def onto(points: Array, truth: Array) -> Array:
    """Rotation (2, 2) that, of rows about their mean, takes points to the truth best."""
    a, b = points - points.mean(axis=0), truth - truth.mean(axis=0)
    u, _, v = np.linalg.svd(a.T @ b)
    return u @ np.diag([1, np.linalg.det(u @ v)]) @ v


def pose_errors(poses: Path, truth: Path) -> PoseErrors:
    """Compare two pose files, by the first one's frames."""
    found = read_poses(poses)
    true = read_poses(truth)
    first = true[next(iter(found))]
    plane = LocalPlane(float(first.latitude or 0), float(first.longitude or 0))
    (p, h), (q, g) = (stands([t[f] for f in found], plane) for t in (found, true))

    def steps(points: Array, headings: Array) -> Array:
        """Each next frame as seen from a frame: metres (N - 1, 2) to the right and ahead."""
        turn = np.deg2rad(headings[:-1])
        (x, y), c, s = np.diff(points, axis=0).T, np.cos(turn), np.sin(turn)
        return np.stack([c * x - s * y, s * x + c * y], axis=1)

    turns = (np.diff(h) - np.diff(g) + 180) % 360 - 180
    laid = (p - p.mean(axis=0)) @ onto(p, q) + q.mean(axis=0)
    return PoseErrors(
        np.hypot(*(steps(p, h) - steps(q, g)).T), np.abs(turns), np.hypot(*(laid - q).T)
    )


def ground_errors(
    city: Path, drive: str, poses: Path, mosaic: Path, every: int = 10
) -> tuple[float, float]:
    """Compare a mosaic with the ground that rays find, within 8 m of every tenth frame.

    The whole stands where GPS says, so around each frame the ground is taken from where the frame
    really was. One factor evens out the brightness.

    Returns
    -------
    psnr
        In dB, of what the mosaic claims to know.
    claimed
        Which part of the ground that is.
    """
    said = json.loads((city / "city.json").read_text("utf-8"))["settings"]
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in said.items()}
    settings = Settings(**values)
    district = next(d for d in plan(settings) if any(x.name == drive for x in d.drives))
    frames = next(x for x in district.drives if x.name == drive).frames
    day = settings.dates[0]
    scene = prepare(settings, district).scenes[day]
    light = light_of(date.fromisoformat(day), settings.seed, frames[0].later)
    found, true = read_poses(poses), read_poses(city / "drive" / drive / "truth.csv")
    # The city's own plane, whose degrees are all of one size.
    per_degree, zero = metres_per_degree()[::-1], latitude_longitude(district.name, 0, 0)[::-1]
    p, q = (
        (np.array([(t[f].longitude, t[f].latitude) for f in found], float) - zero) * per_degree
        for t in (found, true)
    )
    turn, squares, count, area = onto(p, q), 0.0, 0, 0
    with rasterio.open(mosaic) as file:
        to_degrees = Transformer.from_crs(file.crs, 4326, always_xy=True)
        half = round(AROUND / file.res[0])
        for k in range(0, len(p), every):
            lon, lat = p[k] / per_degree + zero
            east, north = to_degrees.transform(lon, lat, direction="INVERSE")
            row, column = file.index(east, north)
            low = [max(row - half, 0), max(column - half, 0)]
            high = [min(row + half, file.height), min(column + half, file.width)]
            rows, columns = np.mgrid[low[0] : high[0], low[1] : high[1]]
            bands = file.read(window=((low[0], high[0]), (low[1], high[1])))
            degrees = np.stack(to_degrees.transform(*file.xy(rows.ravel(), columns.ravel())), 1)
            rays = np.zeros((len(degrees), 6), np.float32)
            rays[:, :2] = ((degrees - zero) * per_degree - p[k]) @ turn + q[k]
            rays[:, 2], rays[:, 5] = 0.05, -1.0  # from just above the ground, under cars and trees
            truth = look(scene, light, rays, 0.0, file.res[0])[0].astype(float)
            sure = bands[3].ravel() > 0
            drawn = np.moveaxis(bands[:3], 0, -1).reshape(-1, 3)[sure].astype(float)
            area, count = area + len(sure), count + int(sure.sum())
            if sure.any():
                truth = truth[sure] * (drawn.mean() / truth[sure].mean())
                squares += float(((drawn - truth) ** 2).mean(axis=1).sum())
    return float(10 * np.log10(255**2 / (squares / count))), count / area


@click.command(help="Print how far poses and mosaic of a drive are from the truth.")
@click.argument("city", type=PATH)
@click.argument("drive")
@click.option("--poses", type=PATH, required=True, help="Refined poses.")
@click.option("--mosaic", type=PATH, help="The GeoTIFF.")
def main(city: Path, drive: str, poses: Path, mosaic: Path | None) -> None:
    """Print how far poses and mosaic of a drive are from the truth."""
    folder = city / "drive" / drive
    if not folder.is_dir():
        raise click.UsageError(f"{folder} is no drive of the city; make it with --drive")
    for name, path in (("GPS", folder / "poses.csv"), ("refined", poses)):
        off = pose_errors(path, folder / "truth.csv")
        print(
            f"{name:8} frame to frame: median {np.median(off.step):.3f} m, 95 % within"
            f" {np.percentile(off.step, 95):.3f} m; {np.median(off.turn):.2f} and"
            f" {np.percentile(off.turn, 95):.2f} degrees. As a whole: median"
            f" {np.median(off.whole):.2f} m, at most {off.whole.max():.2f} m"
        )
    if mosaic:
        psnr, claimed = ground_errors(city, drive, poses, mosaic)
        print(f"ground   {psnr:.1f} dB on the {100 * claimed:.0f} % that the mosaic claims to know")


if __name__ == "__main__":
    main()
