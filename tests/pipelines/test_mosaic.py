"""Registration against cameras whose stand is known, and the street frames against each other."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import bevgen
from bevgen.errors import InputError
from pipelines.mosaic import Frame, composite, gps_placements, level_views, main, read_frames
from pipelines.registration import Array, LevelViews, correlations, register
from tests.helpers.ground_truth import Shot, as_photo, fine_noise
from tests.helpers.paths import STREET

NAMES = ("2.jpg", "3.jpg", "4.jpg")
HEIGHT = 1.9


def level_cut(east: float, north: float, heading: float, height: float) -> NDArray[np.float32]:
    """What a camera there would see of fine noise: 512 pixels of 0.025 heights, up is forward."""
    offset = (np.arange(512) - 255.5) * 0.025 * height
    right, forward = np.meshgrid(offset, -offset)
    c, s = np.cos(np.deg2rad(heading)), np.sin(np.deg2rad(heading))
    x, y = east + c * right + s * forward, north - s * right + c * forward
    return fine_noise(5)(x, y).astype(np.float32)


def test_cuts_of_one_texture_are_put_back_where_they_were_cut() -> None:
    height = 2.2
    truth = np.array([[-0.4, -3.1, 355.0, 0, 0], [0.2, 0.3, 371.0, 0, 0], [0.9, 3.0, 349.0, 0, 0]])
    # Errors of GPS and compass that cancel in the mean, which registration cannot see.
    error = np.array([[0.9, -0.6, 7, 0, 0], [-1.2, -0.5, -6, 0, 0], [0.3, 1.1, -1, 0, 0]])
    images = np.stack([level_cut(e, n, heading, height) for e, n, heading in truth[:, :3].tolist()])
    views = LevelViews(images, np.ones(images.shape, np.bool_), 0.025)
    found = register(views, truth + error, height)
    # The mean of three frames holds: so does where each one is.
    assert np.abs(found - truth)[:, :2].max() < 0.05
    assert np.abs(found - truth)[:, 2].max() < 0.3
    assert np.abs(found)[:, 3:].max() < 0.1
    assert (correlations(views, truth + error, height) < 0.2).all()
    assert (correlations(views, found, height) > 0.9).all()


def test_tilted_cameras_tell_their_pitch_and_roll() -> None:
    truth = np.array([[0.0, -1.4, 20.0, 2.5, -1.0], [0.0, 1.4, 28.0, -1.5, 2.0]])
    error = np.array([[0.7, 0.5, -4, 0, 0], [-0.7, -0.5, 4, 0, 0]])
    ground = fine_noise(8)
    frames = []
    for east, north, heading, pitch, roll in truth.tolist():
        shot = Shot(rows=720, columns=1440, height=2, heading=heading, pitch=pitch, roll=roll)
        grey = as_photo(shot.take(lambda x, y, e=east, n=north: ground(x + e, y + n)))
        frames.append(Frame("", np.repeat(grey, 3, axis=2), (90, -90), 0, 0, heading))
    guess = truth * [1, 1, 1, 0, 0] + error
    found = register(level_views(frames), guess, 2.0)
    # A tilt moves the whole picture a little, and so the mean; compare how the two stand.
    relative = (found - truth)[1] - (found - truth)[0]
    assert np.hypot(relative[0], relative[1]) < 0.05
    assert abs(relative[2]) < 0.3
    assert np.abs(found - truth)[:, 3:].max() < 0.2


def test_frames_that_share_no_ground_are_refused() -> None:
    images = np.zeros((2, 512, 512), np.float32)
    views = LevelViews(images, np.ones(images.shape, np.bool_), 0.025)
    guess = np.array([[0.0, 0, 0, 0, 0], [0.0, 40, 0, 0, 0]])
    with pytest.raises(InputError, match=r"frames 1 and 2 share no ground: they are 40\.0 m"):
        register(views, guess, HEIGHT)


@cache
def street() -> tuple[list[Frame], Array, Array]:
    """The frames, their placements by GPS, and after registration."""
    frames = read_frames(STREET, NAMES)
    by_gps = gps_placements(frames)
    return frames, by_gps, register(level_views(frames), by_gps, HEIGHT)


def earth_centred(latitude: float, longitude: float) -> Array:
    """Point on the WGS84 ellipsoid in metres from the centre of the Earth."""
    a, b = 6_378_137.0, 6_356_752.3142
    parametric = np.arctan(b / a * np.tan(np.deg2rad(latitude)))
    turn = np.deg2rad(longitude)
    r, z = a * np.cos(parametric), b * np.sin(parametric)
    return np.array([r * np.cos(turn), r * np.sin(turn), z])


def test_positions_are_metres_on_the_ellipsoid() -> None:
    frames, by_gps, _ = street()
    first, _, last = (earth_centred(f.latitude, f.longitude) for f in frames)
    to_north = earth_centred(49.01, 1.9192) - earth_centred(49.00, 1.9192)
    to_north /= np.linalg.norm(to_north)
    along = (last - first) @ to_north
    across = np.sqrt(((last - first) ** 2).sum() - along**2)
    assert by_gps[2, :2] - by_gps[0, :2] == pytest.approx([across, along], abs=0.005)
    assert by_gps[:, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert np.diff(by_gps[:, 2]) == pytest.approx([-9.71, -11.03], abs=0.02)


def test_headings_around_north_have_their_mean_at_north() -> None:
    panorama = np.zeros((2, 4, 3), np.uint8)
    frames = [Frame("", panorama, (90, -90), 60, 179.99999 * k, 10 * k) for k in (1, -1)]
    placements = gps_placements([replace(f, heading=f.heading % 360) for f in frames])
    assert placements[:, 2].mean() % 360 == pytest.approx(0, abs=1e-9)


def test_registration_makes_the_street_frames_agree() -> None:
    frames, by_gps, registered = street()
    views = level_views(frames)
    assert (correlations(views, by_gps, HEIGHT) < 0.2).all()
    assert (correlations(views, registered, HEIGHT) > 0.55).all()
    # GPS and compass were what their makers say.
    assert np.hypot(*(registered - by_gps)[:, :2].T).max() < 2.5
    assert np.abs(registered - by_gps)[:, 2].max() < 12
    assert np.abs(registered)[:, 3:].max() < 6


def on_the_ground(frame: Frame, placement: Array) -> NDArray[np.uint8]:
    """20 x 20 m of grey ground around the mean position, 2 cm a pixel."""
    east, north, heading, pitch, roll = placement.tolist()
    grey = np.asarray(Image.fromarray(frame.panorama).convert("L"))
    bev = bevgen.project(grey, HEIGHT, 0.02, 1600, heading=heading, pitch=pitch, roll=roll)
    column, row = 300 - round(east / 0.02), 300 + round(north / 0.02)
    return bev[row : row + 1000, column : column + 1000]


def zebra_disagreement(first: Frame, second: Frame, at: Array) -> float:
    """Median distance in metres between what two frames say a patch of the zebra is.

    Template matching of patches of 1.2 m around the middle of the crossing, within half a metre;
    a patch that is not found counts as half a metre.
    """
    one, two = on_the_ground(first, at[0]), on_the_ground(second, at[1])
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
    frames, by_gps, registered = street()
    first, second = (frames[k] for k in pair)
    assert zebra_disagreement(first, second, by_gps[list(pair)]) > 0.3
    assert zebra_disagreement(first, second, registered[list(pair)]) < 0.08


def test_mosaic_shows_whoever_stands_nearest_and_nobody_at_the_nadir() -> None:
    plain = [np.full((256, 512, 3), grey, np.uint8) for grey in (60, 180)]
    frames = [Frame("", panorama, (90, -90), 0, 0, 0) for panorama in plain]
    placements = np.array([[0.0, 0, 0, 0, 0], [0.0, 6, 0, 0, 0]])
    mosaic = composite(frames, placements, HEIGHT, 0.1)[..., 0]
    assert mosaic.shape == (260, 200)
    south, north = 160, 100  # rows of the two cameras
    assert mosaic[0, 0] == 255  # nobody near
    assert mosaic[south + 50, 100] < 70
    assert mosaic[north - 50, 100] > 170
    assert 110 < mosaic[130, 100] < 130  # half way
    assert mosaic[south, 100] == 180  # a nadir is left to the other frame
    assert mosaic[north, 100] == 60


def test_script_writes_the_mosaic_and_prints_the_corrections(tmp_path: Path) -> None:
    out = tmp_path / "mosaic.png"
    run = ["--in", str(STREET), "--out", str(out), "--height", "1.9", "--no-register"]
    result = CliRunner().invoke(main, [*run, "--resolution", "0.05", *NAMES])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[1:4]] == list(NAMES)
    with Image.open(out) as image:
        # Cameras 0.7 m apart from west to east, 6.2 m from south to north, 10 m around each.
        assert image.width == pytest.approx(20.75 / 0.05, abs=2)
        assert image.height == pytest.approx(26.25 / 0.05, abs=2)


def test_script_says_which_panorama_has_no_position(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "a.png")
    run = ["--in", str(tmp_path), "--out", str(tmp_path / "m.jpg"), "--height", "2"]
    result = CliRunner().invoke(main, run)
    assert result.exit_code == 1
    assert "a.png says no position or no heading" in result.output
