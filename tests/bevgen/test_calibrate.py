"""Calibration against a synthetic city, whose heights, headings and horizons are known."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bevgen as public
from bevgen import calibration
from bevgen.calibration import View, choose, estimation, find_pairs
from bevgen.calibration.rings import AZIMUTHS, NEAR, RINGS, STEP, panorama_rings, tile_rings
from bevgen.cli import main
from bevgen.errors import InputError
from bevgen.geometry import PanoramaView, Pose
from pipelines.citymaker.dataset import Settings, make_city
from tests.helpers.runs import bevgen

PLACES = 16
RESOLUTION = 70 / 320  # metres per pixel of the tiles
OFFSET = 37.0  # degrees by which the headings told are wrong
CROP = (0.27, 0.65)  # part of the rows that a cropped panorama keeps


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places of three districts, up to 9 metres off their tiles' centres; more tables beside."""
    out = tmp_path_factory.mktemp("city") / "city"
    settings = Settings(
        places=PLACES,
        seed=11,
        districts=("oldtown", "suburb"),
        cross=(),
        heading="random",
        offset=9.0,
        tilt=1.0,
        panorama_width=768,
        tile_size=320,
        views=("panorama", "satellite"),
    )
    make_city(out, settings)
    poses, pairs = read(out / "poses.csv"), read(out / "pairs.csv")
    kept = ("file", "id", "pitch", "roll")
    write(out / "unknown.csv", [{k: row[k] for k in kept} for row in poses])
    wrong = [
        {k: row[k] for k in kept} | {"heading": float(row["heading"]) - OFFSET} for row in poses
    ]
    write(out / "wrong.csv", wrong)
    references = [pair["reference"] for pair in pairs]
    shuffled = references[5:] + references[:5]
    write(
        out / "shuffled.csv",
        [{**pair, "reference": r} for pair, r in zip(pairs, shuffled, strict=True)],
    )
    (out / "cropped").mkdir()
    for path in (out / "panorama").iterdir():
        with Image.open(path) as image:
            top, bottom = (round(part * image.height) for part in CROP)
            image.crop((0, top, image.width, bottom)).save(out / "cropped" / path.name, quality=92)
    return out


def calibrated(city: Path, out: Path, *words: object, expect: int = 0) -> dict:
    """Run the command on the city; the result as JSON."""
    done = bevgen(
        *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "pairs.csv"),
        *("--resolution", RESOLUTION, "--out", out, "--json", *words),
        cwd=city,
        expect=expect,
    )
    with Image.open(out) as sheet:
        assert sheet.size == (1600, 1130)
    return json.loads(done.stdout)


def degrees_off(found: float, truth: float) -> float:
    return abs((found - truth + 180) % 360 - 180)


def true_height(city: Path) -> float:
    return float(np.mean([float(row["height"]) for row in read(city / "poses.csv")]))


def test_height_and_a_common_heading_are_found(city, tmp_path):
    result = calibrated(
        city,
        tmp_path / "c.png",
        *("--poses", "wrong.csv", "--write-poses", tmp_path / "poses.csv"),
    )
    truth = true_height(city)
    assert result["verdict"] == "clear"
    assert result["pairs"] == PLACES
    assert result["height"]["value"] == pytest.approx(truth, rel=0.05)
    assert result["height"]["low"] < truth < result["height"]["high"]
    assert result["ratio"]["value"] == pytest.approx(truth / RESOLUTION, rel=0.05)
    assert result["heading"]["value"] == pytest.approx(OFFSET, abs=2)
    headings = {row["id"]: float(row["heading"]) for row in read(city / "poses.csv")}
    written = read(tmp_path / "poses.csv")
    assert {row["id"] for row in written} == headings.keys()
    assert all(degrees_off(float(row["heading"]), headings[row["id"]]) < 2 for row in written)


def test_an_offset_from_known_headings_makes_no_heading_of_unknown_ones(city, tmp_path):
    rows = read(city / "wrong.csv")
    unknown = {row["id"] for row in rows[2:5]}
    write(
        tmp_path / "some.csv",
        [row | ({"heading": ""} if row["id"] in unknown else {}) for row in rows],
    )
    poses = tmp_path / "poses.csv"
    words = ("--poses", tmp_path / "some.csv", "--write-poses", poses)
    done = bevgen(
        *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "pairs.csv"),
        *("--out", tmp_path / "said.png", *words),
        cwd=city,
    )
    assert f"headings of {PLACES - 3} of {PLACES} panoramas" in done.stdout
    assert "to convert, leave out the others (--list)" in done.stdout
    result = calibrated(city, tmp_path / "c.png", *words, "--overwrite")
    assert result["heading"]["value"] == pytest.approx(OFFSET, abs=2)
    assert {row["id"] for row in read(poses)} == {row["id"] for row in rows} - unknown


def test_a_heading_is_found_for_each_image_where_none_is_known(city, tmp_path):
    poses = tmp_path / "poses.csv"
    result = calibrated(
        city,
        tmp_path / "c.png",
        *("--poses", "unknown.csv", "--heading", "per-image", "--write-poses", poses),
    )
    assert result["verdict"] == "clear"
    assert result["height"]["value"] == pytest.approx(true_height(city), rel=0.05)
    truth = {row["id"]: float(row["heading"]) for row in read(city / "poses.csv")}
    off = {i: degrees_off(h["heading"], truth[i]) for i, h in result["headings"].items()}
    sure = {i for i, h in result["headings"].items() if h["confidence"] >= 0.9}
    assert off.keys() == truth.keys()
    assert np.mean([value < 2 for value in off.values()]) >= 0.8
    assert len(sure) >= PLACES // 2
    assert max(off[i] for i in sure) < 2
    assert {row["id"] for row in read(poses)} == sure
    done = bevgen(
        *("convert", "-i", city / "panorama", "-o", tmp_path / "bev.h5", *result["options"]),
        *("--poses", poses, "--size", "64", "--dry-run"),
    )
    assert done.stderr.startswith(f"{PLACES} images")


def test_what_a_mask_hides_has_no_say(city, tmp_path):
    """Most of each panorama is turned by 30 degrees: what is believed tells the heading."""
    use = np.ones((192, 384), np.bool_)
    use[:, :288] = False
    Image.fromarray(use).save(tmp_path / "mask.png")
    (tmp_path / "painted").mkdir()
    for path in (city / "panorama").iterdir():
        panorama = np.asarray(Image.open(path)).copy()
        panorama[:, :576] = np.roll(panorama, 64, axis=1)[:, :576]
        Image.fromarray(panorama).save(tmp_path / "painted" / path.name, quality=95)
    words = ("--in", tmp_path / "painted", "--poses", "wrong.csv")
    result = calibrated(city, tmp_path / "c.png", *words, "--mask", tmp_path / "mask.png")
    assert result["verdict"] == "clear"
    assert result["height"]["value"] == pytest.approx(true_height(city), rel=0.05)
    assert result["heading"]["value"] == pytest.approx(OFFSET, abs=2)


def test_the_horizon_of_cropped_panoramas_is_found(city, tmp_path):
    result = calibrated(
        city, tmp_path / "c.png", "--in", "cropped", "--poses", "wrong.csv", "--horizon"
    )
    top, bottom = (round(part * 384) for part in CROP)
    rows, truth = bottom - top, 384 / 2 - top
    assert abs(truth - rows / 2) > 0.1 * rows  # it is not where one would guess
    assert result["rows"] == rows
    assert result["verdict"] == "clear"
    assert result["horizon_row"]["value"] == pytest.approx(truth, abs=max(0.01 * rows, 1.5))
    assert result["height"]["value"] == pytest.approx(true_height(city), rel=0.05)
    field = np.array([truth, truth - rows]) * 180 / 384
    np.testing.assert_allclose(result["vertical_fov"], field, atol=1)


def field(city: Path, *, off_rows: float = 0.0, stretch: float = 1.0) -> tuple[str, str, str]:
    """The cropped panoramas' vertical field: as it is, or wrong by rows (of 224) or by a factor."""
    top, bottom = (90 - 180 / 384 * round(part * 384) for part in CROP)
    middle, half = (top + bottom) / 2, (top - bottom) / 2 * stretch
    lifted = middle + off_rows * (top - bottom) / 224
    return "--vertical-fov", f"{lifted + half:.3f}", f"{lifted - half:.3f}"


@pytest.mark.parametrize("mode", ["common", "per-image"])
def test_a_right_field_leaves_no_doubt(city, tmp_path, mode):
    words = ("--in", "cropped", "--poses", "wrong.csv", "--heading", mode, *field(city))
    result = calibrated(city, tmp_path / "c.png", *words)
    assert result["verdict"] == "clear"
    assert result["doubts"] == []
    assert abs(result["horizon_error"]["value"]) < 0.3
    assert result["height"]["value"] == pytest.approx(true_height(city), rel=0.05)


@pytest.mark.parametrize(
    ("mode", "rows"),
    [("common", 8), ("common", -8), ("per-image", 8), ("common", 27), ("common", -27)],
)
def test_a_wrong_horizon_is_named(city, tmp_path, mode, rows):
    """By near and far ground, or, where it is off by 8 degrees, by all that agrees elsewhere."""
    words = ("--in", "cropped", "--poses", "wrong.csv", "--heading", mode)
    result = calibrated(city, tmp_path / "c.png", *words, *field(city, off_rows=rows))
    # The height is wrong, and nothing but the doubt says so.
    assert result["height"]["value"] != pytest.approx(true_height(city), rel=0.08)
    assert result["verdict"] == "weak"
    assert result["options"] == []
    side = "higher" if rows > 0 else "lower"
    height, horizon = result["doubts"][-2:]
    assert height.startswith("height: near and far ground disagree on it")
    assert f"degrees {side} than told" in height
    assert f"rows {side} in the images" in horizon
    assert "add --horizon" in horizon
    degrees = rows * 180 / 384 * (round(CROP[1] * 384) - round(CROP[0] * 384)) / 224
    assert result["horizon_error"]["value"] == pytest.approx(
        degrees, abs=max(0.5, 0.2 * abs(rows / 3))
    )


@pytest.mark.parametrize("stretch", [1.05, 0.95])
def test_a_field_that_makes_pixels_oblong_is_doubted(city, tmp_path, stretch):
    words = ("--in", "cropped", "--poses", "wrong.csv", *field(city, stretch=stretch))
    done = bevgen(
        *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "pairs.csv"),
        *("--out", tmp_path / "c.png", *words),
        cwd=city,
    )
    assert "verdict            weak" in done.stdout
    taller = "taller" if stretch > 1 else "less tall"
    assert f"but: height: by --vertical-fov, pixels are 5.0% {taller} than wide" in done.stdout
    assert "add --horizon" in done.stdout
    assert "bevgen convert" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("no command to convert with")


@pytest.mark.parametrize("mode", ["common", "per-image"])
def test_nothing_is_found_where_nothing_is(city, tmp_path, mode):
    poses = tmp_path / "poses.csv"
    done = bevgen(
        *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "shuffled.csv"),
        *("--out", tmp_path / "c.png", "--heading", mode, "--write-poses", poses),
        cwd=city,
        expect=1,
    )
    assert done.stdout == f"verdict            not found ({PLACES} pairs)\n"
    assert "do they belong together" in done.stderr
    assert (tmp_path / "c.png").exists()
    assert not poses.exists()


def test_offsets_of_the_other_sign_would_be_noticed(city, tmp_path):
    mirrored = [
        row | {"d_row": -float(row["d_row"]), "d_col": -float(row["d_col"])}
        for row in read(city / "pairs.csv")
    ]
    write(tmp_path / "pairs.csv", mirrored)
    words = ("--poses", "poses.csv", "--heading", "known")
    right = calibrated(city, tmp_path / "a.png", *words)
    wrong = calibrated(
        city, tmp_path / "b.png", *words, "--pairs", tmp_path / "pairs.csv", expect=1
    )
    assert right["verdict"] == "clear"
    assert wrong["verdict"] == "not found"
    assert "heading" not in right


def test_what_is_printed_without_a_resolution(city, tmp_path):
    done = bevgen(
        *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "pairs.csv"),
        *("--poses", "wrong.csv", "--out", tmp_path / "c.png", "--sample", "12"),
        cwd=city,
    )
    lines = done.stdout.splitlines()
    assert [line[:18].rstrip() for line in lines[:3]] == [
        "height in pixels",
        "heading offset",
        "verdict",
    ]
    assert "12 pairs" in lines[2]
    assert "--write-poses" in lines[3]
    words = lines[4].split()
    height, resolution = (float(words[words.index(o) + 1]) for o in ("--height", "--resolution"))
    assert height / resolution == pytest.approx(true_height(city) / RESOLUTION, rel=0.05)


def test_heights_in_poses_that_would_go_before_the_height_found_are_said(city, tmp_path):
    """`bevgen convert` takes the height of poses.csv before its option."""
    said = []
    for poses in ("poses.csv", "wrong.csv"):
        done = bevgen(
            *("calibrate", "--in", "panorama", "--reference", "satellite", "--pairs", "pairs.csv"),
            *("--heading", "common", "--poses", poses, "--out", tmp_path / f"{poses}.png"),
            cwd=city,
        )
        said.append(f"take the column height out of {poses}" in done.stdout)
    assert said == [True, False]


def test_python_finds_what_the_command_finds(city, tmp_path):
    words = ("--poses", "unknown.csv", "--heading", "per-image")
    result = calibrated(city, tmp_path / "c.png", *words)
    pairs = public.find_pairs(
        str(city / "panorama"),
        str(city / "satellite"),
        pairs_file=city / "pairs.csv",
        poses=city / "unknown.csv",
    )
    views = [public.load_view(pair)[0] for pair in pairs]
    ratios = (0.5 / RESOLUTION, 8 / RESOLUTION)
    found = public.calibrate(views, ratios=ratios, heading="per-image")
    assert found.ratio.value == pytest.approx(result["ratio"]["value"], rel=1e-6)
    assert not found.horizon_is_off
    headings = {
        p.id: public.find_heading(v, found).heading for p, v in zip(pairs, views, strict=True)
    }
    expected = {name: own["heading"] for name, own in result["headings"].items()}
    assert headings == pytest.approx(expected)


def test_damaged_images_are_skipped(city, tmp_path):
    shutil.copytree(city / "panorama", tmp_path / "panorama")
    victim = sorted((tmp_path / "panorama").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:5000])
    result = calibrated(
        city, tmp_path / "c.png", "--in", tmp_path / "panorama", "--poses", "wrong.csv"
    )
    assert result["pairs"] == PLACES - 1
    assert len(result["skipped"]) == 1
    assert victim.name in result["skipped"][0]


def test_a_common_offset_is_written_without_decoding(city, tmp_path):
    """Beyond the sample only what is known of a panorama is read: one cut in half has that, too."""
    shutil.copytree(city / "panorama", tmp_path / "panorama")
    pairs = find_pairs(tmp_path / "panorama", city / "satellite", pairs_file=city / "pairs.csv")
    sample = {pair.id for pair in choose(pairs, 8)}
    victim = next(pair for pair in pairs if pair.id not in sample)
    victim.panorama.write_bytes(victim.panorama.read_bytes()[:5000])
    poses = tmp_path / "poses.csv"
    words = ("--in", tmp_path / "panorama", "--poses", "wrong.csv", "--sample", "8")
    calibrated(city, tmp_path / "c.png", *words, "--write-poses", poses)
    assert victim.id in {row["id"] for row in read(poses)}


# --- geometry, against closed forms ---


def flat_view(panorama=None, tile=None, pose=None, row=0.0, column=0.0, lens=None):
    panorama = np.zeros((256, 512), np.uint8) if panorama is None else panorama
    tile = np.zeros((64, 64), np.uint8) if tile is None else tile
    lens = lens or PanoramaView(*panorama.shape)
    return View(panorama, lens, pose or Pose(), tile, row, column)


def test_rings_of_a_panorama_lie_where_trigonometry_puts_them():
    rows = np.arange(256)[:, None] * np.ones(512)
    grey, seen = panorama_rings(flat_view(panorama=rows.astype(np.uint8)))
    distance = NEAR * np.exp(STEP * np.arange(RINGS))
    below = np.rad2deg(np.arctan(1 / distance))
    assert seen.all()
    np.testing.assert_allclose(
        grey, np.tile(((90 + below) / 180 * 256 - 0.5)[:, None], AZIMUTHS), atol=0.05
    )
    lowered, _ = panorama_rings(flat_view(panorama=rows.astype(np.uint8)), horizon=-9.0)
    np.testing.assert_allclose(lowered - grey, 9 / 180 * 256, atol=0.01)


def test_a_heading_turns_the_rings():
    columns = np.ones((256, 1)) * np.arange(512) / 2
    grey, _ = panorama_rings(flat_view(columns.astype(np.uint8), pose=Pose(heading=90.0)))
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 360 / AZIMUTHS
    expected = ((azimuth - 90 + 180) % 360) / 360 * 256 - 0.5
    inner = np.abs((azimuth + 90) % 360 - 180 + 180) > 5  # not across the seam
    np.testing.assert_allclose(grey[10][inner], expected[inner], atol=0.6)


def test_rings_are_not_seen_where_a_mask_hides_the_panorama():
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 256, (2, 256, 512)).astype(np.uint8)
    use = np.ones((256, 512), np.bool_)
    use[:, 100:228] = False  # azimuths of -110 to -20 degrees
    second[use] = first[use]
    (a, seen), (b, _) = (panorama_rings(replace(flat_view(p), use=use)) for p in (first, second))
    azimuth = (np.arange(AZIMUTHS) + 0.5) * 360 / AZIMUTHS - 360
    assert not seen[:, (azimuth > -109) & (azimuth < -20.7)].any()
    assert seen[:, (azimuth < -112) | (azimuth > -18)].all()
    np.testing.assert_allclose(a[seen], b[seen], atol=0.6)


def test_rings_below_a_panorama_are_not_seen():
    lens = PanoramaView(128, 512, (45.0, -20.0))
    _, seen = panorama_rings(flat_view(np.zeros((128, 512), np.uint8), lens=lens))
    nearest = NEAR * np.exp(STEP * np.flatnonzero(seen[:, 0])[0])
    assert nearest == pytest.approx(1 / np.tan(np.deg2rad(20)), rel=1.5 * STEP)


def test_rings_of_a_tile_lie_where_trigonometry_puts_them():
    tile = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    grey, seen = tile_rings(flat_view(tile=tile, row=80.0, column=120.0), 2.0, 120)
    distance = 2 * np.exp(STEP * np.arange(120))[:, None]
    azimuth = np.deg2rad((np.arange(AZIMUTHS) + 0.5) * 360 / AZIMUTHS)
    east, north = distance * np.sin(azimuth), distance * np.cos(azimuth)
    inside = (120 + east < 199) & (120 + east > 1) & (80 - north > 1) & (80 - north < 199)
    np.testing.assert_allclose(grey[inside], (120 + east - 0.5)[inside], atol=0.05)
    assert seen[inside].all()
    assert not seen[(np.abs(100 - 120 - east) > 103) | (np.abs(100 - 80 + north) > 103)].any()


# --- pairs ---


def pictures(folder: Path, names: list[str], size: tuple[int, int] = (64, 32)) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    return folder


def test_pairs_meet_by_id_or_by_table(tmp_path):
    root = pictures(tmp_path / "p", ["a/1.png", "a/2.png", "x.png"])
    tiles = pictures(tmp_path / "t", ["a/1.jpg", "a/2.jpg", "y.jpg"], (32, 32))
    assert [p.id for p in find_pairs(root, tiles)] == ["a/1", "a/2"]
    (tmp_path / "poses.csv").write_text("file,id,heading\nx.png,y,12\n")
    named = find_pairs(root, tiles, poses=tmp_path / "poses.csv")
    assert [(p.id, p.tile.name, p.own.heading) for p in named][-1] == ("y", "y.jpg", 12)
    (tmp_path / "pairs.csv").write_text(
        "query,reference,role,d_row,d_col\r\nx,y,positive,-71.5,3\r\nx,a/1,semi,1,2\r\n"
        "gone,y,positive,0,0\r\n"
    )
    (pair,) = find_pairs(root, tiles, pairs_file=tmp_path / "pairs.csv")
    assert (pair.id, pair.tile.name, pair.d_row, pair.d_col) == ("x", "y.jpg", -71.5, 3)


def test_two_files_of_one_id_are_refused_with_a_way_out(tmp_path):
    root = pictures(tmp_path / "p", ["a.png"])
    tiles = pictures(tmp_path / "t", ["a.jpg", "a.png"], (32, 32))
    with pytest.raises(InputError, match=r"a\.jpg and a\.png in .* one id, 'a': move .* folder$"):
        find_pairs(root, tiles)
    with pytest.raises(InputError, match=r"to another folder, or give ids in a poses file"):
        find_pairs(tiles, root)


def test_a_sample_is_the_same_every_time(tmp_path):
    root = pictures(tmp_path / "p", [f"{i:02d}.png" for i in range(20)])
    pairs = find_pairs(root, root)
    some = choose(pairs, 6)
    assert some == choose(pairs, 6)
    assert len({pair.id for pair in some}) == 6
    assert choose(pairs, 20) == pairs


PAIRS_FILES = {
    "query,tile\na,b\n": "unknown column 'tile'",
    "query,reference,d_row\na,b,far\n": "line 2: d_row must be a number",
    "query,reference,role\na,b,best\n": "line 2: role must be one of positive, semi,",
    "query,reference\na\n": "line 2: 1 cell,",
    "query,reference,role\na,b,gallery\n": "line 2: a row needs",
    "query,reference\nq,r\n": "no panorama of",
}


def test_of_several_references_the_first_serves(tmp_path):
    root = pictures(tmp_path / "p", ["a.png", "b.png", "c.png"])
    text = "query,reference,role\na,b,positive\na,c,positive\nb,a,semi\n,c,gallery\n"
    (tmp_path / "pairs.csv").write_text(text)
    [pair] = find_pairs(root, root, pairs_file=tmp_path / "pairs.csv")
    assert (pair.panorama.name, pair.tile.name) == ("a.png", "b.png")


@pytest.mark.parametrize("text", PAIRS_FILES, ids=range(len(PAIRS_FILES)))
def test_a_bad_table_is_refused_with_its_line(tmp_path, text):
    root = pictures(tmp_path / "p", ["a.png", "b.png", "c.png"])
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError) as error:
        find_pairs(root, root, pairs_file=tmp_path / "pairs.csv")
    assert PAIRS_FILES[text] in str(error.value)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "too few to tell what is chance: 3 pairs"),
        (("--out", "c.gif"), 2, "must end in .png"),
        (("--out", "none/c.png"), 1, "create it first"),
        (("--out", "p/1.png"), 1, "p/1.png exists"),
        (("--resolution", "-1"), 2, "resolution must be above 0"),
        (("--heading", "known", "--write-poses", "x.csv"), 2, "leave out --heading known"),
        (("--poses", "a.csv", "--write-poses", "./a.csv", "--overwrite"), 1, "a.csv is read"),
        (("--poses", "a.csv", "--write-json", "a.csv", "--overwrite"), 1, "a.csv is read"),
        (("--reference", "nowhere"), 2, "nowhere does not exist"),
        (("--reference", "mixed"), 2, "tiles must be of one size"),
        (("--in", "other"), 2, "no panorama of other has a tile in t by equal ids"),
        (("--in", "square"), 2, "or look for it with --horizon"),
        (("--in", "sizes", "--horizon"), 2, "--horizon needs panoramas of one size"),
        (("--mask", "a.csv"), 2, "a.csv: "),
        (("--mask", "white.png"), 2, "a mask of 32 x 32 pixels is not proportional"),
    ],
)
def test_errors_are_for_the_user(tmp_path, monkeypatch, capsys, words, code, message):
    names = ["1.png", "2.png", "3.png"]
    for folder, size in (("p", (64, 32)), ("t", (32, 32)), ("square", (32, 32))):
        pictures(tmp_path / folder, names, size)
    for folder in ("mixed", "sizes"):
        pictures(tmp_path / folder, names[:2])
        pictures(tmp_path / folder, names[2:], (128, 64))
    pictures(tmp_path / "other", ["4.png"])
    Image.new("L", (32, 32), 255).save(tmp_path / "white.png")
    (tmp_path / "a.csv").write_text("file,heading\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        main(["calibrate", "--in", "p", "--reference", "t", "--out", "c.png", *words])
    assert done.value.code == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "c.png").exists()
    assert (tmp_path / "a.csv").read_text() == "file,heading\n"


def test_arguments_of_the_function_are_checked():
    views = [flat_view()] * estimation.MIN_PAIRS
    with pytest.raises(InputError, match="must rise from above 0"):
        calibration.calibrate(views, ratios=(20, 10))
    with pytest.raises(InputError, match="not 'guess'"):
        calibration.calibrate(views, ratios=(2, 10), heading="guess")  # type: ignore[arg-type]


def test_pictures_without_any_edge_say_nothing():
    found = calibration.calibrate([flat_view()] * estimation.MIN_PAIRS, ratios=(2, 10))
    assert found.verdict == "not found"
