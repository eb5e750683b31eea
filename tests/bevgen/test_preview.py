"""The sheet is measured pixel by pixel: every line must lie where trigonometry puts it."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from bevgen.cli import main
from bevgen.drawing import round_length
from bevgen.geometry import BevGrid, PanoramaView, Pose
from bevgen.preview import (
    BEV_BOX,
    MASK_BOX,
    PANORAMA_BOX,
    SHEET,
    Caption,
    draw_preview,
    frame_points,
)
from bevgen.project import project_view
from tests.helpers.ground_truth import Shot
from tests.helpers.image_files import encoded, exif, gpano
from tests.helpers.paths import STREET

AMBER, CYAN = np.array([255, 196, 46]), np.array([72, 208, 255])


def drawn(panorama=None, *, grid=None, pose=None, view=None):
    """A sheet of a panorama (black unless given) as an array, and the mask of its BEV."""
    if panorama is None:
        panorama = np.zeros((64, 128, 3), np.uint8)
    grid, pose = grid or BevGrid(128, 0.24), pose or Pose()
    view = view or PanoramaView(*panorama.shape[:2])
    bev, valid = project_view(panorama, grid, view, pose)
    sheet = draw_preview(
        panorama,
        bev,
        valid,
        view=view,
        pose=pose,
        grid=grid,
        title="test",
        captions=[Caption("height", "2 m", "default")],
    )
    return np.asarray(sheet), valid


def part(sheet, box):
    return sheet[box[1] : box[3], box[0] : box[2]].astype(int)


def is_colour(image, colour, tolerance=60):
    return np.abs(image - colour).max(axis=-1) <= tolerance


def white_rows(image, column):
    """The mean row of the white pixels of one column."""
    rows = np.flatnonzero(image[:, column].min(axis=-1) > 200)
    assert rows.size, f"nothing white in column {column}"
    return rows.mean() + 0.5


ROUND = {6.144: 5, 5: 5, 4.999: 2, 2: 2, 1.99: 1, 1: 1, 0.999: 0.5, 0.012: 0.01, 1000: 1000}


@pytest.mark.parametrize(("metres", "expected"), [*ROUND.items(), (999, 500), (1e-4, 1e-4)])
def test_lengths_are_round(metres, expected):
    assert round_length(metres) == expected


@pytest.mark.parametrize(
    ("size", "resolution", "metres"), [(796, 0.05, 5), (796, 0.111262, 10), (398, 0.01, 0.5)]
)
def test_scale_bar_is_as_long_as_it_says(size, resolution, metres):
    sheet, _ = drawn(grid=BevGrid(size, resolution))
    corner = part(sheet, BEV_BOX)[-60:, :400]
    white = corner.min(axis=-1) == 255
    longest = 0
    for row in white:
        edges = np.flatnonzero(np.diff(np.r_[0, row.astype(int), 0]))
        longest = max([longest, *np.diff(edges)[::2]])
    on_sheet = (BEV_BOX[2] - BEV_BOX[0]) / size
    assert longest == pytest.approx(metres / resolution * on_sheet, abs=0.5)


def test_circles_are_to_scale_in_both_pictures():
    grid, pose = BevGrid(512, 0.06), Pose(height=1.9)
    sheet, _ = drawn(grid=grid, pose=pose)
    bev, panorama = part(sheet, BEV_BOX), part(sheet, PANORAMA_BOX)
    scale = bev.shape[1] / grid.extent
    for radius, colour in ((5, AMBER), (10, CYAN)):
        # South of the camera, where nothing else is drawn.
        below = np.flatnonzero(is_colour(bev[410:, bev.shape[1] // 2], colour)) + 410.5
        assert below.mean() == pytest.approx(bev.shape[0] / 2 + radius * scale, abs=1)
        rows = np.flatnonzero(is_colour(panorama[:, 300], colour)) + 0.5
        elevation = math.degrees(math.atan2(1.9, radius))
        assert rows.mean() == pytest.approx(256 + elevation / 180 * 512, abs=1)


def test_north_arrow_points_where_the_picture_has_north():
    # The camera looks east, so that north lies a quarter to the left of the centre.
    panorama = np.zeros((128, 256, 3), np.uint8)
    panorama[:, 64 - 20 : 64 + 20, 0] = 200
    sheet, _ = drawn(panorama, pose=Pose(heading=90))
    bev = part(sheet, BEV_BOX)
    red = (bev[..., 0] > 150) & (bev[..., 1] < 60)
    rows, columns = np.nonzero(red)
    assert rows.mean() < 796 / 3, "the red ground is not in the upper part"
    assert columns.mean() == pytest.approx(796 / 2, abs=12)
    arrow = bev[34:92, -80:-10].min(axis=-1) == 255
    widths = [np.ptp(np.flatnonzero(row)) + 1 for row in arrow if row.any()]
    assert widths[0] <= 4
    assert max(widths) >= 25
    assert np.argmax(widths) > len(widths) * 0.7, "the arrow is not narrow at its top"


@pytest.mark.parametrize("heading", [0, 77, 290])
def test_horizon_is_straight_without_tilt_and_the_compass_turns(heading):
    sheet, _ = drawn(pose=Pose(heading=heading))
    panorama = part(sheet, PANORAMA_BOX)
    assert (panorama[255:257].min(axis=-1) > 240).mean() > 0.95
    # A tick of each letter stands 9 pixels above and below the horizon.
    for azimuth in (0, 90, 180, 270):
        column = round(((azimuth - heading + 180) % 360) / 360 * 1024)
        if column == 0:  # astride the seam: moved into the picture, to either side
            column = max(16, 1008, key=lambda c: panorama[249, c - 2 : c + 2].min(axis=-1).max())
        assert panorama[248:264, column - 2 : column + 2].min(axis=-1).max(axis=1).min() > 200


@pytest.mark.parametrize(("pitch", "roll"), [(10, 0), (-6, 0), (0, 12), (0, -5)])
def test_tilt_bends_the_horizon(pitch, roll):
    sheet, _ = drawn(pose=Pose(heading=45, pitch=pitch, roll=roll))
    panorama = part(sheet, PANORAMA_BOX)
    per_degree = 512 / 180
    # With the nose up the horizon sinks ahead; with the right side down it rises on the right.
    assert white_rows(panorama[:295], 512) == pytest.approx(256 + pitch * per_degree, abs=1.5)
    assert white_rows(panorama[:295], 768) == pytest.approx(256 - roll * per_degree, abs=1.5)
    assert white_rows(panorama[:295], 256) == pytest.approx(256 + roll * per_degree, abs=1.5)


def test_points_on_the_frame_agree_with_traced_rays():
    """Rays of an independent camera, sent through known pixels, come back to these."""
    pose = Pose(height=2, heading=123, pitch=7, roll=-11)
    shot = Shot(512, 1024, heading=123, pitch=7, roll=-11)
    row, column = np.array([3.5, 200.25, 300.0, 500.0]), np.array([1.0, 700.5, 1023.0, 512.0])
    rays = shot.rays(row, column)
    found = frame_points(3.7 * rays.T, pose)
    np.testing.assert_allclose(found, np.stack([column, row], axis=1), atol=1e-6)


def test_what_a_cropped_panorama_does_not_show_is_dark():
    top, bottom, height = 38.6, -26.9, 2.0
    view = PanoramaView(120, 660, (top, bottom))
    grid = BevGrid(512, 0.06)
    image = np.full((120, 660, 3), 200, np.uint8)
    sheet, valid = drawn(image, grid=grid, pose=Pose(height=height), view=view)
    dark = part(sheet, MASK_BOX).max(axis=-1) < 100
    radius = height / math.tan(math.radians(-bottom))  # nearer ground lies below the lower edge
    assert dark.mean() == pytest.approx(math.pi * radius**2 / grid.extent**2, rel=0.02)
    assert dark.mean() == pytest.approx(1 - valid.mean(), rel=0.02)
    assert dark[104, 104]
    assert not dark[0].any()
    panorama = part(sheet, PANORAMA_BOX)
    lit = np.flatnonzero(panorama[:, 100].min(axis=-1) >= 195)
    assert lit.min() == round((90 - top) / 180 * 512)
    assert lit.max() == round((90 - bottom) / 180 * 512) - 1


def test_horizontal_crop_lies_at_its_azimuths():
    view = PanoramaView(64, 64, horizontal_fov=(-90, 0))
    sheet, _ = drawn(np.full((64, 64, 3), 255, np.uint8), view=view)
    lit = np.flatnonzero(part(sheet, PANORAMA_BOX)[50].min(axis=-1) > 250)
    assert (lit.min(), lit.max()) == (256, 511)


def run_preview(*args, cwd):
    return subprocess.run(
        [sys.executable, "-c", "from bevgen.cli import main; main()", "preview", *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_command_draws_a_real_panorama_and_says_who_said_what(tmp_path):
    """The GoPro's GPano says heading 0.0, meaning nothing; its EXIF knows better."""
    shutil.copy(STREET / "2.jpg", tmp_path)
    done = run_preview("--in", "2.jpg", "--out", "p.png", "--height", "1.9", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = {line[:18].strip(): line[18:].split("  ") for line in done.stdout.splitlines()}
    words = {name: (cells[0].strip(), cells[-1].strip()) for name, cells in said.items()}
    assert words["camera height"] == ("1.9 m", "option")
    assert words["heading"] == ("11.19°", "EXIF")
    assert words["pitch"] == ("0°", "GPano")
    assert words["resolution"] == ("0.06 m a pixel", "default")
    assert words["position"] == ("49.006899, 1.919190", "EXIF")
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == SHEET
        panorama = part(np.asarray(sheet), PANORAMA_BOX)
    with Image.open(STREET / "2.jpg") as photo:
        small = np.asarray(photo.resize((1024, 512), Image.Resampling.LANCZOS), int)
    assert np.abs(panorama[:200] - small[:200]).mean() < 1, "the sky is not the photograph's"


def test_command_tells_gpano_preset_and_file_name_apart(tmp_path, monkeypatch, capsys):
    pixels = np.full((64, 128, 3), 120, np.uint8)
    (tmp_path / "gpano.jpg").write_bytes(
        encoded(
            pixels,
            "JPEG",
            xmp=gpano(ProjectionType="equirectangular", PoseHeadingDegrees=67),
            exif=exif(gps={ExifTags.GPS.GPSImgDirection: 12.0}),
        )
    )
    name = "40.75290377,-73.97958215_2022-08_mpyEVlsley4foc-t1ndVpA_d62_z3.jpg"
    (tmp_path / name).write_bytes(encoded(pixels, "JPEG"))
    rows = []
    monkeypatch.chdir(tmp_path)
    for args in (("gpano.jpg",), (name, "--preset", "cvglobal"), (name, "--preset", "ep-bev")):
        with pytest.raises(SystemExit) as done:
            main(["preview", "--overwrite", "-o", "p.png", "-i", *args])
        assert done.value.code in (0, None)
        out = capsys.readouterr().out
        rows.append({line[:18].strip(): line[18:] for line in out.splitlines()})
    assert rows[0]["heading"].split() == ["67°", "GPano"]
    assert rows[1]["heading"].split() == ["62°", "file", "name"]
    assert rows[1]["camera height"].split() == ["2.5", "m", "preset", "cvglobal"]
    assert rows[1]["position"].split() == ["40.752904,", "-73.979582", "file", "name"]
    assert rows[2]["heading"].split() == ["0°", "compat", "ep-bev"]


def test_command_takes_poses_as_convert_does(tmp_path, monkeypatch, capsys):
    """Before options and file; paths in it begin where those of `convert --in` do."""
    name = "40.75290377,-73.97958215_2022-08_mpyEVlsley4foc-t1ndVpA_d62_z3.jpg"
    (tmp_path / "a/b").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    (tmp_path / "a/b" / name).write_bytes(encoded(pixels, "JPEG"))
    (tmp_path / "poses.csv").write_text(
        f'file,heading,height\n"b/{name}",120,1.7\n"other/{name}",9,9\n', "utf-8"
    )
    monkeypatch.chdir(tmp_path)

    def preview(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["preview", "-i", f"a/b/{name}", "-o", "p.png", "--overwrite", *words])
        return done.value.code or 0, *capsys.readouterr()

    code, out, _ = preview("--poses", "poses.csv", "--height", "3", "--pitch", "2")
    rows = {line[:18].strip(): line[18:].split() for line in out.splitlines()}
    assert code == 0
    assert rows["camera height"] == ["1.7", "m", "poses", "file"]
    assert rows["heading"] == ["120°", "poses", "file"]
    assert rows["pitch"] == ["2°", "option"]
    told = np.asarray(Image.open("p.png"))
    preview("--height", "1.7", "--heading", "120", "--pitch", "2")
    same = np.asarray(Image.open("p.png"))
    np.testing.assert_array_equal(part(told, BEV_BOX), part(same, BEV_BOX))
    (tmp_path / "poses.csv").write_text(f'file,heading\n"{name[1:]}",120\n', "utf-8")
    code, _, said = preview("--poses", "poses.csv")
    assert (code, "has no row" in said) == (2, True)
    (tmp_path / "poses.csv").write_text(f'file,heading\n"{name}",120\n', "utf-8")
    code, _, said = preview("--poses", "poses.csv", "--compat", "ep-bev")
    assert (code, "draws without heading" in said) == (2, True)


def test_command_does_not_overwrite_unless_told(tmp_path):
    shutil.copy(STREET / "d1.jpg", tmp_path)
    (tmp_path / "p.png").write_text("precious")
    refused = run_preview("-i", "d1.jpg", "-o", "p.png", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    assert (tmp_path / "p.png").read_text() == "precious"
    assert run_preview("-i", "d1.jpg", "-o", "p.png", "--overwrite", cwd=tmp_path).returncode == 0
    with Image.open(tmp_path / "p.png") as sheet:
        assert sheet.size == SHEET
    itself = run_preview("-i", "d1.jpg", "-o", "d1.jpg", "--overwrite", cwd=tmp_path)
    assert itself.returncode == 1
    assert (tmp_path / "d1.jpg").read_bytes() == (STREET / "d1.jpg").read_bytes()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("-i", "folder", "-o", "p.png"), 2, "folder is a folder"),
        (("-i", "missing.jpg", "-o", "p.png"), 1, "missing.jpg: cannot be read"),
        (("-i", "cut.jpg", "-o", "p.png"), 1, "cut.jpg: truncated"),
        (("-i", "square.png", "-o", "p.png"), 1, "square.png: 64 x 64 pixels are not 2:1"),
        (("-i", "square.png", "-o", "p.gif"), 2, "p.gif must end in .png"),
        (("-i", "square.png", "-o", "no/p.png"), 1, "does not exist"),
        (("-i", "square.png", "-o", "p.png", "--height", "-2"), 2, "height must be above 0"),
    ],
)
def test_command_errors_are_for_the_user(tmp_path, args, code, words, monkeypatch, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.jpg").write_bytes((STREET / "d1.jpg").read_bytes()[:100_000])
    Image.new("RGB", (64, 64)).save(tmp_path / "square.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["preview", *args])
    assert done.value.code == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "p.png").exists()
