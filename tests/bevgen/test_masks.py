"""Masks: through the lookup against brute force, in shards, and as `bevgen mask` finds them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import bevgen
from bevgen.cli import main
from bevgen.conversion.run import convert
from bevgen.conversion.settings import BevSettings
from bevgen.errors import InputError, RefusedError
from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels
from bevgen.images.mask import read_mask
from bevgen.projection.masking import Mask
from bevgen.shards import ShardSet
from pipelines import camera_check
from pipelines.camera_check import as_jpeg, found, overlap
from pipelines.citymaker.dataset import Settings
from pipelines.citymaker.rig import CAPS, build_car, hidden, put_cap
from tests.helpers.paths import ROOT

STREET = ROOT / "tests" / "data" / "street"
Frame = NDArray[np.uint8]


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    return int(done.value.code or 0)


# --- through the lookup ---


def test_a_bev_pixel_is_hidden_if_one_of_its_four_neighbours_is() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (128, 256, 3), dtype=np.uint8)
    use = rng.uniform(size=(128, 256)) > 0.02
    grid, pose = BevGrid(96, 0.1), Pose(2.0, 33.3, 3.0, -2.0)
    options: dict[str, Any] = {
        "height": 2.0, "heading": 33.3, "pitch": 3.0, "roll": -2.0, "size": 96, "resolution": 0.1,
        "return_valid": True,
    }  # fmt: skip
    column, row, seen = panorama_pixels(grid, PanoramaView(128, 256), pose)
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    touched = np.zeros_like(seen)
    for down in (0, 1):
        for right in (0, 1):
            touched |= ~use[np.clip(top + down, 0, 127), (left + right) % 256]

    bev, valid = bevgen.project(image, mask=use, antialias=False, **options)
    free, _ = bevgen.project(image, antialias=False, **options)
    np.testing.assert_array_equal(valid, seen & ~touched)
    np.testing.assert_array_equal(bev, np.where(valid[..., None], free, 0))

    averaged, fewer = bevgen.project(image, mask=use, **options)
    assert not (fewer & ~valid & (np.hypot(*np.meshgrid(*grid.ground())) > 6)).any()
    free, _ = bevgen.project(image, **options)
    np.testing.assert_array_equal(averaged, np.where(fewer[..., None], free, 0))
    assert 0.5 < fewer.mean() < 1


@pytest.mark.parametrize("heading", [0.0, 90.0, 123.4])
def test_the_mask_turns_with_the_panorama(heading: float) -> None:
    image = np.full((64, 128), 200, np.uint8)
    use = np.ones((64, 128), np.bool_)
    use[:, :32] = False  # from straight behind to the left
    _, valid = bevgen.project(
        image, mask=use, heading=heading, size=64, resolution=0.2, return_valid=True
    )
    x, y = BevGrid(64, 0.2).ground()
    azimuth = np.degrees(np.arctan2(x[None, :], y[:, None])) - heading
    behind_left = ((azimuth + 180) % 360) < 90
    near_edge = np.abs((azimuth + 180 + 45) % 90 - 45) < 6  # two columns
    far = np.hypot(x[None, :], y[:, None]) > 1
    assert (valid == ~behind_left)[far & ~near_edge].all()


def test_a_mask_of_proportional_size_hides_what_it_hides_in_part() -> None:
    use = np.ones((64, 128), np.bool_)
    use[40, 17] = False
    smaller, larger = Mask.of(use).fitted((32, 64)), Mask.of(use).fitted((128, 256))
    assert [tuple(p) for p in np.argwhere(~smaller)] == [(20, 8)]
    np.testing.assert_array_equal(larger, np.repeat(np.repeat(use, 2, 0), 2, 1))
    odd = Mask.of(use).fitted((96, 192))  # pixels of 2/3: the centre decides
    assert 1 <= (~odd).sum() <= 4
    with pytest.raises(InputError, match="not proportional"):
        Mask.of(use).fitted((64, 120))


def test_the_same_pixels_from_floats_and_batches() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (2, 64, 128, 3), dtype=np.uint8)
    use = rng.uniform(size=(64, 128)) > 0.05
    projector = bevgen.Projector(size=48, resolution=0.2, mask=use)
    bevs, valid = projector(images, heading=[0.0, 77.0], return_valid=True)
    for k, heading in enumerate((0.0, 77.0)):
        one, seen = projector(images[k].astype(np.float32), heading=heading, return_valid=True)
        np.testing.assert_array_equal(valid[k], seen)
        assert np.abs(one - bevs[k]).max() <= 1
        assert (bevs[k][~seen] == 0).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((64, 128), np.bool_), "hides everything"),
        (np.ones((64, 128, 3), np.uint8), "bool or uint8"),
        (np.ones((64, 128)), "bool or uint8"),
        (np.ones((64, 64), np.bool_), "not proportional"),
    ],
)
def test_masks_that_cannot_be_used(mask: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bevgen.project(np.zeros((64, 128), np.uint8), mask=mask, size=16)


# --- in shards ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    panoramas = tmp_path / "panoramas"
    panoramas.mkdir()
    rng = np.random.default_rng(2)
    for name in "abc":
        Image.fromarray(rng.integers(1, 255, (64, 128, 3), dtype=np.uint8)).save(
            panoramas / f"{name}.png"
        )
    Image.fromarray(rng.integers(1, 255, (64, 100, 3), dtype=np.uint8)).save(panoramas / "odd.png")
    use = np.ones((64, 128), np.bool_)
    use[50:] = False
    Image.fromarray(use).save(tmp_path / "mask.png")
    return tmp_path


SMALL = {"size": 32, "resolution": 0.2}


def test_a_mask_is_among_the_settings_and_without_one_they_are_as_before(folder: Path) -> None:
    plain = BevSettings(**SMALL)
    assert not {"mask", "roll_sign"} & set(plain.to_json())
    mask = read_mask(folder / "mask.png")
    assert BevSettings(**SMALL, mask=mask).to_json() == {**plain.to_json(), "mask": mask.digest}
    other = Mask.of(np.arange(64 * 128).reshape(64, 128) > 9)
    assert mask.digest != other.digest
    assert mask.digest == Mask.of(mask.use.copy()).digest


def test_shards_with_a_mask(folder: Path) -> None:
    root, out = folder / "panoramas", folder / "bev.h5"
    words = ("--in", root, "--size", 32, "--resolution", 0.2, "--vertical-fov", 90, -90)
    mask = ("--mask", folder / "mask.png")
    assert run("convert", *words, *mask, "--out", out) == 0
    with ShardSet(out) as shards:
        assert [failure.source for failure in shards.failures] == ["odd.png"]
        assert "not proportional" in shards.failures[0].reason
        use = np.asarray(Image.open(folder / "mask.png"))
        for k, name in enumerate("abc"):
            image = np.asarray(Image.open(root / f"{name}.png"))
            bev, valid = bevgen.project(image, mask=use, return_valid=True, **SMALL)
            np.testing.assert_array_equal(shards[k], bev)
            np.testing.assert_array_equal(shards.valid(k), valid)
    assert run("convert", *words, *mask, "--out", out) == 0  # complete
    with pytest.raises(RefusedError, match="mask"):
        convert(root, out, BevSettings(**SMALL, vertical_fov=(90, -90)))
    assert run("convert", *words, "--mask", root / "a.png", "--out", out) == 1
    Image.new("L", (128, 64)).save(folder / "black.png")
    assert run("convert", *words, "--mask", folder / "black.png", "--out", folder / "c.h5") == 2
    assert run("convert", *words, "--mask", folder / "none.png", "--out", folder / "c.h5") == 2
    assert not (folder / "c.h5").exists()


# --- found in frames ---

WIDTH = 1024


@cache
def frames(district: str, seed: int, car: bool, width: int = WIDTH) -> tuple[Frame, ...]:
    """Eight panoramas of different places."""
    settings = Settings(
        places=8, districts=(district,), cross=(), heading="random", seed=seed, tilt=1.0,
        panorama_width=width, views=("panorama",),
    )  # fmt: skip
    return tuple(image for image, _ in camera_check.frames(settings, car))


def test_a_car_is_found_in_eight_frames_and_nothing_where_there_is_none() -> None:
    truth = hidden(build_car(0), "", WIDTH)
    assert overlap(found(list(frames("suburb", 0, True))), truth) >= 0.95
    assert found(list(frames("suburb", 0, False))).mean() <= 0.001
    for frame in frames("suburb", 0, False):
        assert found([frame]).mean() <= 0.001


def test_plain_ground_that_happens_to_agree_is_no_rig() -> None:
    assert found(list(frames("industrial", 1, False, 512))).mean() <= 0.001


@pytest.mark.parametrize("cap", CAPS)
def test_caps_are_found_in_one_frame_and_better_in_eight(cap: str) -> None:
    truth = hidden(None, cap, WIDTH)
    capped = [as_jpeg(put_cap(frame, cap)) for frame in frames("suburb", 0, False)]
    assert overlap(found(capped), truth) >= 0.95
    for frame in capped[::3]:
        assert overlap(found([frame]), truth) >= 0.9


def test_one_place_again_and_again_is_refused() -> None:
    with pytest.raises(InputError, match="one place"):
        found([frames("suburb", 0, True)[0]] * 8)


def test_the_command_finds_a_mask_that_convert_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "sequence", tmp_path / "mask.png"
    root.mkdir()
    for k, frame in enumerate(frames("suburb", 0, True)):
        Image.fromarray(frame).save(root / f"{k}.jpg", quality=90)
    Image.new("RGB", (64, 32)).save(root / "small.jpg")
    Image.new("RGB", (64, 64)).save(root / "square.jpg")
    (root / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    assert run("mask", "--in", root, "--out", out) == 0
    said = capsys.readouterr()
    assert "still in 8 frames" in said.out
    for words in ("square.jpg: 64 x 64 pixels", "torn.jpg: ", " frames, not of "):
        assert words in said.err
    use = np.asarray(Image.open(out))
    assert use.shape == (WIDTH // 2, WIDTH)
    assert overlap(~use, hidden(build_car(0), "", WIDTH)) >= 0.95
    assert run("mask", "--in", root, "--out", out) == 1  # there is one
    assert "--overwrite" in capsys.readouterr().err
    bev = tmp_path / "bev.h5"
    words = ("--in", root, "--out", bev, "--mask", out, "--size", 64, "--resolution", 0.25)
    assert run("convert", *words) == 0
    with ShardSet(bev) as shards:
        assert not shards.valid(0)[28:36, 28:36].any()
        assert shards.valid(0).mean() > 0.8


def test_the_command_says_what_one_frame_can_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "sequence", tmp_path / "mask.png"
    root.mkdir()
    Image.fromarray(frames("suburb", 0, False)[0]).save(root / "0.jpg")
    assert run("mask", "--in", root, "--out", out) == 1
    said = capsys.readouterr()
    assert "1 frame: only caps were looked for" in said.out
    assert "neither car nor cap was found" in said.err
    assert not out.exists()
    assert run("mask", "--in", root, "--out", tmp_path / "mask.jpg") == 2
    assert run("mask", "--in", STREET, "--out", out, "--json") == 1  # a rider who moves his head
    result = json.loads(capsys.readouterr().out)
    assert result["out"] is None
    assert result["frames"] == 3
