import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

import bevgen
from georetrieval.config import AugmentSettings
from georetrieval.transforms.augment import augment_pairs
from georetrieval.transforms.jpeg import compress
from georetrieval.transforms.network_input import to_network
from georetrieval.transforms.orientation import (
    _interpolate,
    cut_circle,
    flip,
    limit_fov,
    other_headings,
    rotate,
)

NOTHING = dict.fromkeys(
    ("flip", "turn", "compression", "photometric", "blur_or_sharpen", "dropout"), 0
)
SIZE = 96  # of BEVs and references, pixels
CPU = torch.device("cpu")


def only(**values: float) -> AugmentSettings:
    return AugmentSettings.model_validate(NOTHING | values)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def panorama(width: int = 256) -> np.ndarray:
    """A smooth picture without any symmetry, uint8 (width / 2, width, 3)."""
    azimuth = np.linspace(0, 2 * np.pi, width, endpoint=False)[None, :, None]
    row = np.linspace(0, 1, width // 2)[:, None, None]
    phase = np.array([0.3, 1.7, 4.1])
    values = np.sin(azimuth + phase) + 0.5 * np.sin(3 * azimuth + 9 * row + 2 * phase)
    return (127 + 80 * values * (0.4 + 0.6 * row)).clip(0, 255).astype(np.uint8)


def seen_from_above(pictures: Tensor) -> Tensor:
    """Project float panoramas (n, 3, H, W) by bevgen's public function."""
    bevs = [
        bevgen.project(
            np.ascontiguousarray(picture.permute(1, 2, 0).numpy()),
            height=2.0,
            resolution=0.1,
            size=SIZE,
            antialias=False,  # its samples are not placed symmetrically
        )
        for picture in pictures
    ]
    return to_nchw(np.stack(bevs))


def to_nchw(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def ring(inner: float, outer: float) -> Tensor:
    """Pixels of a BEV that lie that far from its centre; at the camera's feet, views blur."""
    offset = torch.arange(SIZE) - SIZE / 2 + 0.5
    radius = torch.hypot(offset[:, None], offset)
    return (radius > inner) & (radius < outer)


@pytest.fixture(scope="module")
def views() -> tuple[Tensor, Tensor]:
    """One panorama as float (1, 3, 128, 256), and its BEV."""
    query = to_nchw(panorama()[None].astype(np.float32) / 255)
    return query, seen_from_above(query)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_rolled_panorama_and_turned_squares_show_one_world(views, quarter):
    query, bev = views
    degrees = torch.tensor([90.0 * quarter])
    rolled = rotate(query, degrees, "panorama")
    torch.testing.assert_close(
        seen_from_above(rolled), rotate(bev, degrees, "bev"), atol=1e-4, rtol=0
    )
    assert (bev - rotate(bev, degrees, "bev")).abs().mean() > 0.05  # it did turn


def test_free_turns_agree_with_the_panorama_too(views):
    query, bev = views
    for columns in (10, 101, 200):
        degrees = torch.tensor([360 * columns / query.shape[3]])
        expected = seen_from_above(rotate(query, degrees, "panorama"))
        found = rotate(bev, degrees, "bev")
        difference = (found - expected).abs()[..., ring(8, 45)]
        assert difference.mean() < 0.01
        wrong = rotate(bev, -degrees, "bev")
        assert (wrong - expected).abs()[..., ring(8, 45)].mean() > 0.05


@pytest.mark.parametrize("fov", [70, 90, 180, 300])
def test_a_limited_panorama_shows_the_sector_that_is_left_of_the_bev(views, fov):
    query, bev = views
    window = limit_fov(query, fov, "panorama")
    columns = window.shape[3]
    assert columns == round(256 * fov / 360)
    # Put back in its place, all else black, and projected by bevgen.
    alone = torch.zeros_like(query)
    start = (256 - columns) // 2
    alone[..., start : start + columns] = window
    expected = seen_from_above(alone)
    sector = limit_fov(bev, fov, "bev")
    wrong = (sector - expected).abs().amax(1)[:, ring(6, 60)] > 1e-4
    # At the sector's edges the projection mixes a column of panorama with black.
    assert wrong.float().mean() < 0.04
    seen = (sector[0].sum(0) > 0)[ring(6, 48)].float().mean().item()
    assert seen == pytest.approx(fov / 360, abs=0.01)
    assert sector[..., : SIZE // 2 - 10, SIZE // 2].gt(0).all()  # north of the camera
    assert sector[..., SIZE // 2 + 10 :, SIZE // 2].gt(0).any() == (fov == 360)


def test_a_whole_view_is_left_as_it_is(views):
    for images, kind in zip(views, ("panorama", "bev"), strict=True):
        assert limit_fov(images, 360.0, kind) is images


@pytest.mark.parametrize("kind", ["panorama", "bev"])
def test_what_lies_outside_of_the_window_leaves_no_trace(kind):
    """In training the views are mirrored and turned first, and coloured last."""
    shape = (4, 3, 32, 64 if kind == "panorama" else 32)
    query, reference = noise(*shape), noise(4, 3, 32, 32, seed=1)
    results = []
    for seed in (2, 3):
        # By a whole turn of nothing but the unseen part: behind the camera.
        other = query.clone()
        behind = noise(*shape, seed=seed)
        if kind == "panorama":
            other[..., :8], other[..., -8:] = behind[..., :8], behind[..., -8:]
        else:
            other[..., 17:, 12:20] = behind[..., 17:, 12:20]
        settings = AugmentSettings(turn=0)
        generator = torch.Generator().manual_seed(7)
        results.append(augment_pairs(other, reference, kind, settings, generator, fov=90))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0].shape[3] == (16 if kind == "panorama" else 32)


def test_east_comes_to_north_at_90_degrees():
    square = torch.zeros(1, 3, 8, 8)
    square[..., 4, 7] = 1  # east: right of the centre
    turned = rotate(square, torch.tensor([90.0]), "bev")
    assert turned[0, 0].nonzero().tolist() == [[0, 4]]
    strip = torch.zeros(1, 3, 4, 16)
    strip[..., 12] = 1  # east: a quarter right of the centre
    assert rotate(strip, torch.tensor([90.0]), "panorama")[0, 0, 0].argmax() == 8


def test_free_turn_goes_the_way_of_quarter_turns():
    images = noise(3, 3, 33, 33)
    for degrees in (0.0, 90.0, 180.0, 270.0, 360.0):
        angles = torch.full((3,), degrees)
        torch.testing.assert_close(
            _interpolate(images, angles), rotate(images, angles, "bev"), atol=1e-4, rtol=0
        )


def test_each_picture_is_turned_by_its_own_angle():
    images = noise(4, 3, 16, 16)
    turned = rotate(images, torch.tensor([0.0, 90.0, -90.0, 45.0]), "bev")
    assert torch.equal(turned[0], images[0])
    assert torch.equal(turned[1], torch.rot90(images[1], 1, (1, 2)))
    assert torch.equal(turned[2], torch.rot90(images[2], 3, (1, 2)))
    assert (turned[3][:, 0, 0] == 0).all()  # a corner from outside


def test_mirrored_panorama_shows_the_mirrored_ground(views):
    query, bev = views
    which = torch.tensor([True])
    found, expected = seen_from_above(flip(query, which)), flip(bev, which)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (bev - expected).abs().mean() > 0.05
    assert torch.equal(flip(query, ~which), query)


@pytest.mark.parametrize("kind", ["panorama", "bev"])
@pytest.mark.parametrize("settings", [only(turn=1), only(turn=1, free_turn=True), only(flip=1)])
def test_both_views_change_together(views, kind, settings):
    panoramas, bevs = (view.expand(6, -1, -1, -1) for view in views)
    query = panoramas if kind == "panorama" else bevs
    generator = torch.Generator().manual_seed(2)
    changed, reference = augment_pairs(query, bevs, kind, settings, generator)
    if kind == "panorama":
        changed = seen_from_above(changed)
    middle = slice(SIZE // 2 - 30, SIZE // 2 + 30)  # free turns leave the corners black
    difference = (changed - reference)[..., middle, middle].abs()
    assert difference.mean() < 0.012
    assert (reference - bevs).abs().mean() > 0.05


def test_probabilities_of_zero_change_no_bit():
    query, reference = noise(5, 3, 12, 24), noise(5, 3, 20, 20, seed=1)
    query[0] = 0.0
    for kind in ("panorama", "bev"):
        result = augment_pairs(query, reference, kind, only(), torch.Generator().manual_seed(0))
        assert torch.equal(result[0], query)
        assert torch.equal(result[1], reference)


@pytest.mark.parametrize(
    "change",
    ["flip", "turn", "compression", "photometric", "blur_or_sharpen", "dropout", "everything"],
)
def test_one_seed_gives_one_result_within_range(change):
    settings = only(**{change: 1}) if change != "everything" else AugmentSettings(turn=1)
    query, reference = noise(16, 3, 32, 64), noise(16, 3, 32, 32, seed=1)
    query[3], query[4] = 0.0, 1.0
    before = query.clone(), reference.clone()

    def run(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return augment_pairs(query, reference, "panorama", settings, generator)

    first, second, other = run(5), run(5), run(6)
    for view in (0, 1):
        assert torch.equal(first[view], second[view])
        assert first[view].shape == before[view].shape
        assert 0 <= first[view].min() <= first[view].max() <= 1
        assert not torch.equal(first[view], before[view])
        if change != "flip":
            assert not torch.equal(first[view], other[view])
    assert torch.equal(query, before[0])  # what came in is as it was
    assert torch.equal(reference, before[1])


def test_probabilities_are_per_pair():
    query, reference = noise(2000, 3, 4, 4), noise(2000, 3, 4, 4, seed=1)
    settings = only(flip=0.3)
    found, _ = augment_pairs(query, reference, "bev", settings, torch.Generator().manual_seed(0))
    changed = (found != query).flatten(1).any(1)
    assert 0.26 < changed.float().mean() < 0.34


def test_colour_changes_do_what_they_are_called():
    grey = torch.full((64, 3, 8, 8), 0.5)
    settings = only(photometric=1, jitter=0.15, gamma=0)
    found, _ = augment_pairs(grey, grey, "bev", settings, torch.Generator().manual_seed(0))
    # Grey stays grey under hue and saturation, and brightness moves it by at most 15 %.
    assert (found.amax(1) - found.amin(1)).max() < 2e-3
    assert 0.42 < found.min() < 0.48
    assert 0.52 < found.max() < 0.58
    settings = only(photometric=1, jitter=0, gamma=0.2)
    found, _ = augment_pairs(grey, grey, "bev", settings, torch.Generator().manual_seed(0))
    assert 0.5**1.2 - 1e-3 <= found.min() < 0.5 < found.max() <= 0.5**0.8 + 1e-3


def angles(images: Tensor) -> np.ndarray:
    """Hue of each image's first pixel, degrees, in the plane of chroma of Python's own colours."""
    pixels = images[:, :, 0, 0].double().tolist()
    chroma = np.array([colorsys.rgb_to_yiq(*pixel)[1:] for pixel in pixels])
    return np.degrees(np.arctan2(chroma[:, 1], chroma[:, 0]))


def test_hue_turns_up_to_54_degrees():
    start = torch.tensor([0.5, 0.4, 0.45])[None, :, None, None].expand(400, 3, 4, 4)
    settings = only(photometric=1, jitter=0.15, gamma=0)
    found, _ = augment_pairs(start, start, "bev", settings, torch.Generator().manual_seed(0))
    moved = (angles(found) - angles(start) + 180) % 360 - 180
    assert -55 < moved.min() < -50
    assert 50 < moved.max() < 55
    assert abs(moved.mean()) < 5


def test_jitter_and_gamma_are_drawn_apart():
    grey = torch.full((4000, 3, 2, 2), 0.5)
    settings = only(photometric=0.3, jitter=0.15, gamma=0.2)
    both, _ = augment_pairs(grey, grey, "bev", settings, torch.Generator().manual_seed(0))
    changed = (both != grey).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(1 - 0.7**2, abs=0.03)
    settings = only(photometric=0.3, jitter=0.15, gamma=0)
    alone, _ = augment_pairs(grey, grey, "bev", settings, torch.Generator().manual_seed(0))
    assert (alone != grey).flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.03)


def test_filters_blur_or_sharpen():
    impulse = torch.zeros(600, 3, 15, 15)
    impulse[..., 7, 7] = 0.1
    ground = 0.5 + impulse  # so that nothing is cut at 0 and 1
    found, _ = augment_pairs(
        ground, ground, "bev", only(blur_or_sharpen=1), torch.Generator().manual_seed(0)
    )
    assert torch.equal(found[:, 0], found[:, 1])
    level = found[:, 0, 0, 0] / 0.5  # of what has no edges: 1 under a blur
    kernels = (found[:, 0] - found[:, 0, :1, :1]) / 0.1
    centre, beside = kernels[:, 7, 7], kernels[:, 7, 8]
    sharp = beside < -0.01
    assert 0.4 < sharp.float().mean() < 0.6
    # Mixed with 0.2 to 0.5 of edges: -1 all around and 8 plus a lightness of 0.5 to 1.
    assert -0.5 - 1e-4 <= beside[sharp].min() < -0.45
    assert -0.25 < beside[sharp].max() <= -0.2 + 1e-4
    share = -beside[sharp]
    torch.testing.assert_close(level[sharp], centre[sharp] - 8 * share, atol=1e-4, rtol=0)
    lightness = (level[sharp] - 1 + share) / share
    assert 0.5 - 1e-3 <= lightness.min() < 0.55
    assert 0.95 < lightness.max() <= 1 + 1e-3
    # Blurs keep the mean and spread it over 3, 5 or 7 pixels at most, unevenly.
    blur = kernels[~sharp]
    torch.testing.assert_close(level[~sharp], torch.ones(len(blur)), atol=1e-5, rtol=0)
    torch.testing.assert_close(blur.sum((1, 2)), torch.ones(len(blur)), atol=2e-3, rtol=0)
    assert blur.min() > -1e-4
    assert (blur[:, 7, 7] > 0.9).any()
    assert (blur[:, 7, 7] < 0.2).any()
    assert (blur[:, 7, 4].abs() > 1e-4).any()
    assert blur[:, 7, :4].abs().max() < 1e-4
    assert (blur[:, 7, 6] - blur[:, 7, 8]).abs().max() > 0.01


def blackened(height: int, width: int, settings: AugmentSettings) -> tuple[Tensor, Tensor]:
    """Return where 300 white panoramas and squares are black, bool (300, H, W) each."""
    query, reference = torch.ones(300, 3, height, width), torch.ones(300, 3, height, height)
    found = augment_pairs(query, reference, "panorama", settings, torch.Generator().manual_seed(0))
    for view in found:
        assert torch.equal(view, view[:, :1].expand(-1, 3, -1, -1))  # all channels of a pixel
        assert ((view == 0) | (view == 1)).all()
    return found[0][:, 0] == 0, found[1][:, 0] == 0


@pytest.mark.parametrize("view", [0, 1])
def test_holes_are_as_large_and_as_many_as_published(view):
    from scipy.ndimage import binary_opening, label

    settings = only(dropout=1, query_grid=0.5, reference_grid=0.4)
    black = blackened(100, 200 if view == 0 else 100, settings)[view].numpy()
    share = black.mean((1, 2))
    # A grid of a tenth of the width has the same share wherever it begins.
    small = np.isclose(share, 0.25 if view == 0 else 0.16)
    assert 0.4 < small.mean() < 0.6
    pitch, hole = (20, 10) if view == 0 else (10, 4)
    for one in black[small][:20]:
        rows, columns = one.any(1), one.any(0)
        assert np.array_equal(one, rows[:, None] & columns)
        for line in (rows, columns):
            assert np.array_equal(line[pitch:], line[:-pitch])
            assert line[:pitch].sum() == hole
    large = black[~small]
    sides = []
    for one in large:
        # Nothing narrower than 10 % of the height, nothing alone wider than 20 %.
        assert np.array_equal(binary_opening(one, np.ones((10, 10))), one)
        numbered, count = label(one)
        assert count <= 25
        for k in range(1, count + 1):
            place = numbered == k
            height, width = place.any(1).sum(), place.any(0).sum()
            if place.sum() == height * width and height <= 20 and width <= 20:
                sides += [height, width]
    assert (min(sides), max(sides)) == (10, 20)
    # 10 to 25 squares of 15 in the mean: 17.5 of 225 pixels, some of them over each other.
    most = 17.5 * 225 / large[0].size
    assert large.mean() == pytest.approx(1 - np.exp(-most), rel=0.1)
    fewest, many = (count * 225 / large[0].size for count in (10, 25))
    assert 0.4 * fewest < large.mean((1, 2)).min() < fewest
    assert 0.75 * (1 - np.exp(-many)) < large.mean((1, 2)).max() < many
    assert not np.array_equal(large[0], large[1])


def test_the_reference_turns_alone_to_all_four_sides():
    query, reference = noise(1200, 3, 6, 10), noise(1200, 3, 6, 6, seed=1)
    found = augment_pairs(
        query, reference, "panorama", only(turn_reference=0.75), torch.Generator().manual_seed(0)
    )
    assert torch.equal(found[0], query)
    for quarter in range(4):
        as_turned = (found[1] == torch.rot90(reference, quarter, (2, 3))).flatten(1).all(1)
        assert 0.21 < as_turned.float().mean() < 0.29


def test_some_images_are_compressed(views):
    smooth = views[1].expand(400, -1, -1, -1)
    settings = only(compression=0.5, quality=60)
    generator = torch.Generator().manual_seed(0)
    found, reference = augment_pairs(smooth, smooth, "bev", settings, generator)
    changed = (found != smooth).flatten(1).any(1)
    assert 0.42 < changed.float().mean() < 0.58
    apart = changed != (reference != smooth).flatten(1).any(1)
    assert 0.4 < apart.float().mean() < 0.6
    values = found[changed] * 255
    torch.testing.assert_close(values, values.round(), atol=1e-4, rtol=0)
    # Each is what its quality gives: all of 60 to 100 occur, and none else.
    given = {q: compress(smooth[:1], torch.tensor([q]))[0] for q in range(50, 101)}
    seen = {next(q for q in given if torch.equal(given[q], one)) for one in found[changed]}
    assert min(seen) >= 60
    assert min(seen) <= 62
    assert max(seen) == 100


def test_what_an_image_becomes_does_not_hang_on_the_others():
    settings = AugmentSettings(turn_reference=0.5)
    views = [(noise(8, 3, 40, 80, seed=k), noise(8, 3, 40, 40, seed=k + 9)) for k in (1, 2)]
    views[1][0][3], views[1][1][3] = views[0][0][3], views[0][1][3]
    for seed in range(8):
        first, second = (
            augment_pairs(*pair, "panorama", settings, torch.Generator().manual_seed(seed))
            for pair in views
        )
        for view in (0, 1):
            torch.testing.assert_close(first[view][3], second[view][3], atol=1e-6, rtol=0)
            assert not torch.equal(first[view][2], second[view][2])


def test_network_input_is_resized_and_scaled():
    images = torch.randint(0, 256, (2, 8, 16, 3), dtype=torch.uint8)
    same = to_network(images, (8, 16), CPU)
    assert torch.equal(same, images.permute(0, 3, 1, 2).float() / 255)
    assert torch.equal(to_network(images, None, CPU), same)
    half = to_network(images, (4, 8), CPU)
    assert half.shape == (2, 3, 4, 8)
    # A triangle filter twice as wide: weights 1, 3, 3, 1 over eight.
    weights = torch.tensor([1, 3, 3, 1]) / 8
    expected = torch.einsum("i,j,cij->c", weights, weights, same[0, :, 1:5, 3:7])
    torch.testing.assert_close(half[0, :, 1, 2], expected)


def test_a_circle_looks_alike_at_any_heading():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    cut = cut_circle(images)
    assert (cut[..., 0, 0] == 0).all()
    assert (cut[..., 31, :] == images[..., 31, :]).all()
    shown = (rotate(cut_circle(torch.ones(1, 3, 64, 64)), torch.tensor([33.0]), "bev") > 0.99).sum()
    assert shown == pytest.approx(np.pi * 32**2 * 3, rel=0.06)


def test_copies_at_other_headings_are_none_of_the_query_s_own():
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 360).expand(1, 3, 8, 360)
    copies = other_headings(ramp, 50, "panorama", generator)
    rolled = copies[:, 0, 0].argmin(dim=1)
    away = torch.minimum(rolled, 360 - rolled)
    assert len(copies) == 50
    assert away.min() >= 11
    assert away.float().std() > 20
