"""Mosaics: cameras whose stand is known, the city's drives, and the street frames."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyproj
import pytest
import rasterio
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

import bevgen
from bevgen.cli import bevgen_command
from bevgen.errors import InputError
from bevgen.geometry import PanoramaView, Pose
from bevgen.mosaic import (
    Canvas,
    LevelViews,
    Sequence,
    Stand,
    correlations,
    gains,
    level_views,
    read_sequence,
    register,
    tiles,
)
from bevgen.mosaic.writing import lay_out
from bevgen.tables import PoseRow, read_poses, write_poses
from tests.helpers.ground_truth import Shot, as_photo, fine_noise
from tests.helpers.paths import STREET
from tests.helpers.runs import start, wait_until

Array = NDArray[np.float64]

NAMES = ["2.jpg", "3.jpg", "4.jpg"]
HEIGHT = 1.9
QUIET = lambda what, done, total: None  # noqa: E731


def level_cut(east: float, north: float, heading: float, height: float) -> NDArray[np.uint8]:
    """What a camera there would see of fine noise: 416 pixels of 0.025 heights, up is forward."""
    offset = (np.arange(416) - 207.5) * 0.025 * height
    right, forward = np.meshgrid(offset, -offset)
    c, s = np.cos(np.deg2rad(heading)), np.sin(np.deg2rad(heading))
    x, y = east + c * right + s * forward, north - s * right + c * forward
    return np.clip(np.rint(fine_noise(5)(x, y)), 0, 255).astype(np.uint8)


def test_cuts_of_one_texture_are_put_back_where_they_were_cut() -> None:
    height = 2.2
    truth = np.array([[-0.4, -3.1, 355.0, 0, 0], [0.2, 0.3, 371.0, 0, 0], [0.9, 3.0, 349.0, 0, 0]])
    # Errors of GPS and compass that cancel in the mean, which registration cannot see.
    error = np.array([[0.9, -0.6, 7, 0, 0], [-1.2, -0.5, -6, 0, 0], [0.3, 1.1, -1, 0, 0]])
    images = np.stack([level_cut(e, n, heading, height) for e, n, heading in truth[:, :3].tolist()])
    views = LevelViews(images, None, 0.025)
    found, pairs = register(views, truth + error, height)
    assert {(0, 1), (1, 2)} <= set(pairs)
    # The mean of three frames holds: so does where each one is.
    assert np.abs(found - truth)[:, :2].max() < 0.05
    assert np.abs(found - truth)[:, 2].max() < 0.3
    assert np.abs(found)[:, 3:].max() < 0.1
    steps = [(0, 1), (1, 2)]
    assert (correlations(views, truth + error, height, steps) < 0.2).all()
    assert (correlations(views, found, height, steps) > 0.9).all()


def test_a_way_that_meets_itself_is_closed() -> None:
    """Once around a block: the last frame stands where the first one does."""
    rng = np.random.default_rng(2)
    side = np.array([0.0, 4.0, 8.0, 12.0])
    corners = [(0, side), (side, 12), (12, 12 - side), (12 - side, 0)]
    way = [np.column_stack([np.broadcast_to(v, 4) for v in c])[:3] for c in corners]
    points = np.concatenate([*way, [[0.3, 0.4]]])
    headings = np.repeat([0.0, 90, 180, 270, 360], [3, 3, 3, 3, 1])
    truth = np.column_stack([points, headings, np.zeros((13, 2))])
    images = np.stack([level_cut(e, n, heading, 2.0) for e, n, heading in truth[:, :3].tolist()])
    guess = truth + rng.normal(size=truth.shape) * [2, 2, 4, 0, 0]
    found, pairs = register(LevelViews(images, None, 0.025), guess, 2.0)
    assert (0, 12) in pairs
    assert farthest(found, truth) < 0.1
    turned = np.diff(found[:, 2]) - np.diff(headings)
    assert np.abs(turned).max() < 0.3


def test_a_long_way_is_not_bent() -> None:
    """GPS and compass pull at each frame, and pictures are noisy: neither may bend the whole."""
    rng, n = np.random.default_rng(3), 20
    bends = [90 + 10 * np.sin(np.arange(n) / 3), np.zeros(n), np.zeros(n)]
    truth = np.column_stack([4.0 * np.arange(n), 0.4 * np.sin(np.arange(n) / 2), *bends])
    images = np.stack([level_cut(e, n, heading, 2.0) for e, n, heading in truth[:, :3].tolist()])
    noisy = np.clip(images + rng.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    guess = truth + rng.normal(size=truth.shape) * [3, 3, 5, 0, 0]
    found, _ = register(LevelViews(noisy, None, 0.025), guess, 2.0)
    assert farthest(found, truth) < 0.05
    assert np.abs(np.diff(found[:, 2] - truth[:, 2])).max() < 0.1


def farthest(found: NDArray[Any], truth: NDArray[Any]) -> float:
    """Metres by which the worst frame is off when all are laid onto the truth together."""
    laid, true = (points[:, :2] - points[:, :2].mean(axis=0) for points in (found, truth))
    u, _, v = np.linalg.svd(laid.T @ true)
    return float(np.hypot(*(laid @ u @ v - true).T).max())


def test_what_is_not_seen_has_no_say_in_registration() -> None:
    """Behind the camera is the same picture in both frames, as of a car that carries it."""
    truth = np.array([[0.0, -1.2, 5.0, 0, 0], [0.1, 1.2, -3.0, 0, 0]])
    images = np.stack([level_cut(e, n, heading, 2.0) for e, n, heading in truth[:, :3].tolist()])
    images[:, 190:] = level_cut(40, 60, 0, 2.0)[190:]
    seen = np.ones(images.shape, np.bool_)
    seen[:, 190:] = False
    guess = truth + np.array([[-0.5, 0.6, 3, 0, 0], [0.5, -0.6, -3, 0, 0]])
    apart = {}
    for name, shown in (("all", None), ("seen", seen)):
        found, _ = register(LevelViews(images, shown, 0.025), guess, 2.0)
        apart[name] = float(np.hypot(*(found[1] - found[0] - truth[1] + truth[0])[:2]))
    assert apart["seen"] < 0.1
    assert apart["all"] > 0.5


def test_tilted_cameras_tell_their_pitch_and_roll() -> None:
    truth = np.array([[0.0, -1.4, 20.0, 2.5, -1.0], [0.0, 1.4, 28.0, -1.5, 2.0]])
    error = np.array([[0.7, 0.5, -4, 0, 0], [-0.7, -0.5, 4, 0, 0]])
    ground = fine_noise(8)
    images = []
    for east, north, heading, pitch, roll in truth.tolist():
        shot = Shot(rows=720, columns=1440, height=2, heading=heading, pitch=pitch, roll=roll)
        grey = as_photo(shot.take(lambda x, y, e=east, n=north: ground(x + e, y + n)))
        images.append(bevgen.project(grey, height=1.0, resolution=0.025, size=416).squeeze())
    guess = truth * [1, 1, 1, 0, 0] + error
    found, _ = register(LevelViews(np.stack(images), None, 0.025), guess, 2.0)
    # A tilt moves the whole picture a little, and so the mean; compare how the two stand.
    relative = (found - truth)[1] - (found - truth)[0]
    assert np.hypot(relative[0], relative[1]) < 0.05
    assert abs(relative[2]) < 0.3
    assert np.abs(found - truth)[:, 3:].max() < 0.2


def test_frames_that_share_no_ground_are_refused() -> None:
    views = LevelViews(np.zeros((2, 416, 416), np.uint8), None, 0.025)
    guess = np.array([[0.0, 0, 0, 0, 0], [0.0, 40, 0, 0, 0]])
    with pytest.raises(InputError, match=r"share no ground.* they are 40\.0 m apart"):
        register(views, guess, HEIGHT)


# --- frames ---


def panoramas(folder: Path, rows: list[PoseRow], greys: tuple[int, ...] = (60, 180)) -> Path:
    for row, grey in zip(rows, greys, strict=False):
        Image.new("RGB", (512, 256), (grey, grey, grey)).save(folder / row.file)
    write_poses(folder / "poses.csv", rows)
    return folder


def at(file: str, north: float, **more: Any) -> PoseRow:
    """A pose so many metres north of 48 N, 2 E."""
    longitude, latitude, _ = pyproj.Geod(ellps="WGS84").fwd(2.0, 48.0, 0.0, north)
    return PoseRow(file, latitude=latitude, longitude=longitude, **more)


def test_headings_around_north_have_their_mean_at_north(tmp_path: Path) -> None:
    rows = [at("a.png", 0, heading=350.0), at("b.png", 6, heading=10.0)]
    rows = [
        replace(row, longitude=179.99999 * sign) for row, sign in zip(rows, (1, -1), strict=True)
    ]
    panoramas(tmp_path, rows)
    sequence = read_sequence(tmp_path, read_poses(tmp_path / "poses.csv"), 2.0)
    assert sequence.guess[:, 2].mean() % 360 == pytest.approx(0, abs=1e-9)
    assert np.abs(sequence.guess[:, :2].mean(axis=0)).max() < 1e-3
    assert np.ptp(sequence.guess[:, 0]) == pytest.approx(1.49, abs=0.02)  # not round the Earth


def test_without_headings_frames_look_along_the_drive(tmp_path: Path) -> None:
    rows = [at(f"{k}.png", -4.0 * k) for k in range(3)]
    panoramas(tmp_path, rows, (9, 9, 9))
    sequence = read_sequence(tmp_path, read_poses(tmp_path / "poses.csv"), 2.0)
    assert not sequence.knows_headings
    assert np.abs(sequence.guess[:, 2]) == pytest.approx(180, abs=0.01)


def test_refined_poses_are_a_table_that_says_where_frames_stand(tmp_path: Path) -> None:
    rows = [at("a.png", 0, heading=3.0, height=2.4), at("b.png", 6, heading=4.0, height=2.4)]
    panoramas(tmp_path, rows)
    sequence = read_sequence(tmp_path, read_poses(tmp_path / "poses.csv"), 2.0)
    assert sequence.height == 2.4
    moved = sequence.guess + np.array([0.5, 0.0, 1.0, 0.2, -0.1])
    again = sequence.rows(moved)
    assert [row.heading for row in again] == [4.0, 5.0]
    assert [(row.pitch, row.roll, row.height) for row in again] == [(0.2, -0.1, 2.4)] * 2
    azimuth, _, metres = pyproj.Geod(ellps="WGS84").inv(
        rows[0].longitude, rows[0].latitude, again[0].longitude, again[0].latitude
    )
    assert (azimuth, metres) == pytest.approx((90, 0.5), abs=0.01)


# --- the street ---


@cache
def street() -> tuple[Sequence, Array, Array]:
    """The frames, their placements by GPS, and after registration."""
    sequence = read_sequence(STREET, {}, HEIGHT, names=NAMES)
    found, _ = register(level_views(sequence, QUIET), sequence.guess, HEIGHT)
    return sequence, sequence.guess, found


def test_registration_makes_the_street_frames_agree() -> None:
    sequence, by_gps, registered = street()
    views, steps = level_views(sequence, QUIET), [(0, 1), (1, 2)]
    assert (correlations(views, by_gps, HEIGHT, steps) < 0.2).all()
    assert (correlations(views, registered, HEIGHT, steps) > 0.55).all()
    # GPS and compass were what their makers say.
    assert np.hypot(*(registered - by_gps)[:, :2].T).max() < 2.5
    assert np.abs(registered - by_gps)[:, 2].max() < 12
    assert np.abs(registered)[:, 3:].max() < 6


def on_the_ground(k: int, placement: Array) -> NDArray[np.uint8]:
    """20 x 20 m of grey ground around the mean position, 2 cm a pixel."""
    east, north, heading, pitch, roll = placement.tolist()
    grey = np.asarray(Image.open(STREET / NAMES[k]).convert("L"))
    bev = bevgen.project(grey, HEIGHT, 0.02, 1600, heading=heading, pitch=pitch, roll=roll)
    column, row = 300 - round(east / 0.02), 300 + round(north / 0.02)
    return bev[row : row + 1000, column : column + 1000]


def zebra_disagreement(pair: tuple[int, int], placements: Array) -> float:
    """Median distance in metres between what two frames say a patch of the zebra is.

    Template matching of patches of 1.2 m around the middle of the crossing, within half a metre;
    a patch that is not found counts as half a metre.
    """
    one, two = (on_the_ground(k, placements[k]) for k in pair)
    distances = []
    for north in np.arange(-2.0, 0.51, 0.5):
        for east in np.arange(0.8, 3.1, 0.5):
            row, column = round(500 - north / 0.02), round(500 + east / 0.02)
            patch = two[row - 30 : row + 30, column - 30 : column + 30]
            around = one[row - 55 : row + 55, column - 55 : column + 55]
            match = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
            shift = np.array(np.unravel_index(match.argmax(), match.shape)) - 25
            found = patch.std() > 12 and match.max() > 0.7
            distances.append(np.hypot(*shift) * 0.02 if found else 0.5)
    return float(np.median(distances))


@pytest.mark.parametrize("pair", [(0, 1), (1, 2)])
def test_the_zebra_appears_once(pair: tuple[int, int]) -> None:
    _, by_gps, registered = street()
    assert zebra_disagreement(pair, by_gps) > 0.3
    assert zebra_disagreement(pair, registered) < 0.08


# --- composition ---


def composed(
    greys: list[int] | list[np.ndarray],
    norths: list[float],
    counts: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Colour, alpha and uncertainty of plain panoramas, 20 x 26 m in pixels of 0.1 m."""
    canvas = Canvas(-10.0, 16.0, 200, 260, 0.1)
    view = PanoramaView(256, 512)
    stands = [Stand(0.0, north, Pose(2.0), 1.0, view) for north in norths]
    plain = [np.full((256, 512, 3), grey, np.uint8) for grey in greys]
    every = np.full((256, 512), 255, np.uint8) if counts is None else counts
    out = [np.full((260, 200), 255, np.uint8), *np.zeros((2, 260, 200), np.uint8)]
    for tile in tiles(canvas, stands, lambda k: (plain[k], every), QUIET):
        h, w = tile.alpha.shape
        part = np.s_[tile.row : tile.row + h, tile.column : tile.column + w]
        for whole, piece in zip(
            out, (tile.colours[..., 0], tile.alpha, tile.uncertainty), strict=True
        ):
            whole[part] = piece
    return out[0], out[1], out[2]


def test_mosaic_shows_whoever_stands_nearest_and_claims_what_two_say() -> None:
    grey, alpha, uncertainty = composed([100, 108], [0.0, 6.0])
    south, north = 160, 100  # rows of the two cameras
    assert grey[0, 0] == 255  # nobody near
    assert grey[south + 50, 100] < 102
    assert grey[north - 50, 100] > 106
    assert 103 < grey[130, 100] < 105  # half way
    assert grey[south, 100] == 108  # a nadir is left to the other frame
    assert grey[north, 100] == 100
    assert alpha[130, 100] == 255
    assert alpha[south, 100] == 0  # seen by one frame alone
    assert uncertainty[south, 100] == 255
    # Farther from both cameras it is less sure.
    assert 0 < uncertainty[130, 100] < uncertainty[130, 170] < 255


def test_what_frames_disagree_on_is_not_claimed() -> None:
    _, alpha, _ = composed([60, 180], [0.0, 6.0])
    assert not alpha.any()


def test_what_agrees_by_chance_is_not_claimed() -> None:
    """Of two frames of noise a pixel in seven is as grey in both, within `TOLERANCE`."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 256, 512, 1))
    _, alpha, _ = composed(list(noise), [0.0, 6.0])
    assert not alpha.any()


def test_a_mask_hides_what_carries_the_camera() -> None:
    counts = np.full((256, 512), 255, np.uint8)
    counts[:, :256] = 0  # all to the west, at heading 0
    grey, _, _ = composed([100, 100], [0.0, 6.0], counts)
    assert (grey[100:160, 20:90] == 255).all()
    assert (grey[110:150, 110:150] == 100).all()


def test_frames_become_equally_bright() -> None:
    stand = np.array([[0.0, -1.5, 0, 0, 0], [0.0, 1.5, 0, 0, 0]])
    images = np.stack([level_cut(0, n, 0, 2.0) for n in (-1.5, 1.5)]).astype(float)
    images = np.clip(np.rint(images * np.array([0.8, 1.0])[:, None, None]), 0, 255)
    factors = gains(LevelViews(images.astype(np.uint8), None, 0.025), stand, 2.0, [(0, 1)])
    assert factors[0] / factors[1] == pytest.approx(1.25, rel=0.05)
    assert factors.prod() == pytest.approx(1)


@pytest.mark.parametrize("longitude", [2.99, 5.9])
def test_the_map_is_turned_and_scaled_as_proj_says(tmp_path: Path, longitude: float) -> None:
    rows = [at("a.png", 0, heading=0.0), at("b.png", 6, heading=0.0)]
    rows = [replace(row, longitude=longitude) for row in rows]
    panoramas(tmp_path, rows)
    sequence = read_sequence(tmp_path, read_poses(tmp_path / "poses.csv"), 2.0)
    canvas, stands, epsg = lay_out(sequence, sequence.guess, np.ones(2), 0.05)
    assert epsg == 32631
    factors = pyproj.Proj(f"EPSG:{epsg}").get_factors(longitude, 48.0)
    assert canvas.scale == pytest.approx(factors.meridional_scale, rel=1e-6)
    assert abs(canvas.turn) == pytest.approx(abs(factors.meridian_convergence), abs=1e-3)
    to_map = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    for stand, row in zip(stands, rows, strict=True):
        assert (stand.east, stand.north) == pytest.approx(
            to_map.transform(row.longitude, row.latitude), abs=1e-4
        )


# --- the command ---


def run(*options: object) -> Result:
    return CliRunner().invoke(bevgen_command, ["mosaic", *map(str, options)], standalone_mode=False)


def test_the_command_writes_a_map_a_picture_and_poses(tmp_path: Path) -> None:
    out, poses = tmp_path / "street.tif", tmp_path / "refined.csv"
    line = ["--in", STREET, "--out", out, "--poses-out", poses, "--height", HEIGHT, "--no-register"]
    result = run(*line, "--resolution", 0.1, *NAMES)
    assert result.exception is None, result.output
    assert "3 frames" in result.output
    assert list(read_poses(poses)) == NAMES
    with rasterio.open(out) as file:
        assert file.descriptions == ("red", "green", "blue", "alpha", "uncertainty, cm")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        # Cameras 0.7 m apart from west to east, 6.2 m from south to north, 9.5 m around each.
        assert file.width == pytest.approx(19.75 / 0.1, abs=4)
        assert file.height == pytest.approx(25.3 / 0.1, abs=4)
        alpha, uncertainty = file.read([4, 5])
        assert ((alpha == 0) == (uncertainty == 255)).all()
    with Image.open(tmp_path / "street.png") as image:
        assert image.width > 150
    again = run(*line, *NAMES)
    assert "--overwrite" in str(again.exception)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["refined.csv", "street.png", "street.tif"]


def test_the_command_hides_what_a_mask_hides(tmp_path: Path) -> None:
    rows = [at(f"{k}.png", 3.0 * k, heading=10.0 * k) for k in range(3)]
    panoramas(tmp_path, rows, (150, 150, 150))
    for row in rows:
        panorama = np.asarray(Image.open(tmp_path / row.file)).copy()
        panorama[150:, 200:360] = 0  # a bonnet
        Image.fromarray(panorama).save(tmp_path / row.file)
    use = np.ones((128, 256), np.bool_)
    use[75:, 100:180] = False
    Image.fromarray(use).save(tmp_path / "mask.png")
    Image.fromarray(use[:100]).save(tmp_path / "shorter.png")
    names = [row.file for row in rows]
    line = ["--in", tmp_path, "--poses", tmp_path / "poses.csv", "--resolution", 0.1, *names]
    for name, options in (("free", []), ("masked", ["--mask", tmp_path / "mask.png"])):
        result = run(*line, "--no-register", "--out", tmp_path / f"{name}.tif", *options)
        assert result.exception is None, result.output
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            assert (file.read(1).min() > 100) == bool(options)
    result = run(*line, "--out", tmp_path / "other.tif", "--mask", tmp_path / "shorter.png")
    assert (
        "skipped: 0.png, 1.png, 2.png: a mask of 256 x 100 pixels is not proportional"
        in result.output
    )
    assert "gave 0" in str(result.exception)


def test_an_interrupted_drawing_leaves_the_poses_and_says_how_to_go_on(tmp_path: Path) -> None:
    panoramas(tmp_path, [at(f"{k}.png", 3.0 * k, heading=0.0) for k in range(2)])
    out = tmp_path / "out"
    out.mkdir()
    line = ("--in", tmp_path, "--poses", tmp_path / "poses.csv", "--no-register")
    more = ("--out", out / "m.tif", "--poses-out", out / "p.csv", "--resolution", 0.004)
    process = start("mosaic", *line, *more)
    assert wait_until(lambda: (out / ".m.tif.part").exists(), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert f"nothing was drawn; add --poses {out / 'p.csv'} --no-register" in said
    assert said.splitlines()[-1] == "Interrupted."
    assert [path.name for path in out.iterdir()] == ["p.csv"]


def test_what_makes_no_mosaic_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 32)).save(tmp_path / name)
    poses = tmp_path / "poses.csv"
    line = ["--in", tmp_path, "--out", tmp_path / "m.tif"]
    result = run(*line)
    assert "skipped: a.png, b.png, c.png: no position" in result.output
    assert "two panoramas or more" in str(result.exception)
    rows = [at("a.png", 0, heading=0.0), at("b.png", 0.2, heading=90.0)]
    write_poses(poses, rows)
    result = run(*line, "--poses", poses)
    assert "stand on one spot" in str(result.exception)
    write_poses(poses, [*rows, at("c.png", 200_000.0, heading=0.0)])
    result = run(*line, "--poses", poses)
    assert "is a position far from all others?" in str(result.exception)
    for words, message in (
        (("--out", tmp_path / "m.jpg"), "must end in .tif"),
        (("--out", tmp_path / "none" / "m.tif"), "create it first"),
        (("--poses-out", tmp_path / "none" / "p.csv"), "create it first"),
        (("--poses-out", poses, "--overwrite"), "poses.csv is read"),
        (("--position-error", "inf"), "is not a number that can be used"),
        (("--mask", poses), "poses.csv: "),
    ):
        assert message in str(run(*line, "--poses", poses, *words).exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png", "b.png", "c.png", "poses.csv",
    ]  # fmt: skip


def test_where_no_camera_was_nothing_is_known(tmp_path: Path) -> None:
    rows = [at("a.png", 0, heading=0.0), replace(at("b.png", 90, heading=0.0), longitude=2.001)]
    panoramas(tmp_path, rows)
    line = ("--in", tmp_path, "--poses", tmp_path / "poses.csv", "--no-register")
    result = run(*line, "--out", tmp_path / "m.tif", "--resolution", 0.1)
    assert result.exception is None, result.output
    assert "no pairs of frames show the same ground" in result.output
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.width > 512
        assert file.height > 1024  # corners that no camera is near
        assert (file.read(4) == 0).all()
        assert (file.read(5) == 255).all()
