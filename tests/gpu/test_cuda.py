"""The GPU draws what the plain NumPy mapping says. Small: the simulator runs thread by thread."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bevgen import BevSettings, InputError, Projector, ShardSet, convert, project
from bevgen.errors import DeviceError
from bevgen.geometry import BevGrid, PanoramaView, Pose, panorama_pixels

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
SIZE, RESOLUTION = 12, 0.5


def panoramas(dtype: str, count: int = 3, channels: int = 3) -> NDArray[Any]:
    random = np.random.default_rng(0)
    return (random.random((count, 16, 32, channels)) * 255).astype(dtype)


def reference(image: NDArray[Any], pose: Pose, fov: tuple[float, float]) -> NDArray[np.float64]:
    """Bilinear values where `panorama_pixels` points; 0 where nothing is shown."""
    height, width, _ = image.shape
    view = PanoramaView(height, width, fov)
    column, row, valid = panorama_pixels(BevGrid(SIZE, RESOLUTION), view, pose)
    row = np.clip(row, 0, height - 1)
    left, upper = np.floor(column).astype(int), np.floor(row).astype(int)
    lower = np.minimum(upper + 1, height - 1)
    a, b = (column - left)[..., None], (row - upper)[..., None]
    near, far = left % width, (left + 1) % width
    above = image[upper, near] * (1 - a) + image[upper, far] * a
    below = image[lower, near] * (1 - a) + image[lower, far] * a
    return np.where(valid[..., None], above * (1 - b) + below * b, 0)


def on_device(array: NDArray[Any]) -> Any:
    from numba import cuda

    return cuda.to_device(array)


POSES = [Pose(2.0), Pose(2.0, 123.0), Pose(1.5, -40.0, 4.0, -3.0)]
COLUMNS = {
    name: [getattr(p, name) for p in POSES] for name in ("height", "heading", "pitch", "roll")
}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("fov", [(90.0, -90.0), (38.0, -27.0)])
def test_poses_types_and_fields_of_view(dtype: str, fov: tuple[float, float]) -> None:
    images = panoramas(dtype)
    projector = Projector(
        size=SIZE, resolution=RESOLUTION, vertical_fov=fov, antialias=False, device="cuda"
    )
    drawn, valid = projector(images, **COLUMNS, return_valid=True)
    truth = np.stack(
        [reference(image, pose, fov) for image, pose in zip(images, POSES, strict=True)]
    )
    # Lookups are rounded to 1/4096 pixel: 255 / 4096 at most for each direction.
    assert np.abs(drawn - truth).max() < (0.7 if dtype == "uint8" else 0.13)
    assert drawn.dtype == dtype
    assert (drawn[~valid] == 0).all()
    assert valid.all() == (fov == (90.0, -90.0))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_and_single_images(channels: int) -> None:
    image = panoramas("float32", 1, channels)[0]
    drawn = project(image, size=SIZE, resolution=RESOLUTION, antialias=False, device="cuda")
    assert np.abs(drawn - reference(image, Pose(2.0), (90.0, -90.0))).max() < 0.13


def test_averages_equal_the_cpu() -> None:
    image = panoramas("float32", 1)[0].repeat(8, axis=0).repeat(8, axis=1)
    options = {"size": SIZE, "resolution": 0.1, "pitch": 2.0}
    plain = project(image, **options, antialias=False, device="cuda")
    ours = project(image, **options, device="cuda")
    assert np.abs(ours - plain).max() > 10  # there is something to average
    np.testing.assert_allclose(ours, project(image, **options, device="cpu"), rtol=1e-5, atol=1e-3)


@pytest.mark.skipif(SIMULATED, reason="too large for the simulator")
@pytest.mark.parametrize("size", [(416, 832), (417, 833)])
@pytest.mark.parametrize("channels", [3, 4])
def test_like_the_cpu(size: tuple[int, int], channels: int) -> None:
    """Of sizes that are read and stored in words, and others; past the seam, in all quarters."""
    images = np.random.default_rng(0).integers(0, 256, (11, *size, channels), np.uint8)
    random = np.random.default_rng(1)
    tilts = {"pitch": random.normal(0, 3, 11), "roll": random.normal(0, 3, 11)}
    for own in ({}, {"heading": 36.1}, {"heading": np.linspace(0, 359, 11)}, tilts):
        for width in (256, 250):
            there, here = (
                Projector(size=width, resolution=0.1, device=device)(images, **own).astype(int)
                for device in ("cuda", "cpu")
            )
            assert np.abs(there - here).max() <= 1
            assert np.abs(there - here).mean() < 0.1


def test_device_memory_in_and_out() -> None:
    images = panoramas("uint8")
    projector = Projector(size=SIZE, resolution=RESOLUTION)
    headings = [0.0, 90.0, 180.0]
    out = on_device(np.zeros((3, SIZE, SIZE, 3), np.uint8))
    made = projector(on_device(images), heading=headings)
    same = projector(on_device(images), heading=headings, out=out)
    through_host = Projector(size=SIZE, resolution=RESOLUTION, device="cuda")(
        images, heading=headings
    )
    assert not isinstance(made, np.ndarray)
    assert same is out
    for result in (made, same, out):
        np.testing.assert_array_equal(result.copy_to_host(), through_host)


def test_calls_that_nobody_waits_for() -> None:
    """What a call sends to the device is read before the next call's takes its place."""
    images = panoramas("uint8")
    projector, there = Projector(size=SIZE, resolution=RESOLUTION), on_device(images)
    turns = [{"heading": [0.0, 30.0 * k, 90.0], "pitch": [0.0, 0.0, k // 3]} for k in range(6)]
    made = [projector(there, **turn) for turn in turns]
    through_host = Projector(size=SIZE, resolution=RESOLUTION, device="cuda")
    for turn, bevs in zip(turns, made, strict=True):
        np.testing.assert_array_equal(bevs.copy_to_host(), through_host(images, **turn))


@pytest.mark.parametrize("poses", [{}, {"heading": [0.0, 90.0, 123.4]}, COLUMNS])
@pytest.mark.parametrize("fov", [(90.0, -90.0), (60.0, -50.0)])
def test_masks_hide_what_they_hide_on_the_cpu(
    poses: dict[str, list[float]], fov: tuple[float, float]
) -> None:
    images = panoramas("float32") + 1
    use = np.random.default_rng(1).uniform(size=(8, 16)) > 0.2  # enlarged to the panoramas
    settings: dict[str, Any] = {"size": SIZE, "resolution": RESOLUTION, "vertical_fov": fov}
    truth, valid = Projector(**settings, mask=use)(images, **poses, return_valid=True)
    _, free = Projector(**settings)(images, **poses, return_valid=True)
    assert 0.1 < (free & ~valid).mean() < 0.9

    for mask in (use, on_device(use)):
        projector = Projector(**settings, mask=mask)
        drawn, seen = projector(on_device(images), **poses, return_valid=True)
        np.testing.assert_array_equal(seen, valid)
        np.testing.assert_allclose(drawn.copy_to_host(), truth, atol=1e-3)
    one, seen = projector(on_device(images[0]), return_valid=True)
    assert seen.shape == (SIZE, SIZE)
    assert not one.copy_to_host()[~seen].any()

    network = projector.to_chw(on_device(images), mean=0.4, std=[0.2, 0.25, 0.3], **poses)
    ours = ((truth / 255 - 0.4) / [0.2, 0.25, 0.3]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(network.copy_to_host(), ours, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_network_input(dtype: str) -> None:
    images = panoramas("uint8")
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    projector = Projector(size=SIZE, resolution=RESOLUTION, vertical_fov=(38.0, -27.0))
    made = projector.to_chw(on_device(images), mean=mean, std=std, dtype=dtype, **COLUMNS)
    bevs = projector(on_device(images.astype(np.float32)), **COLUMNS).copy_to_host()
    truth = ((bevs / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert made.dtype == dtype
    np.testing.assert_allclose(
        made.copy_to_host(), truth, atol=4e-3 if dtype == "float16" else 1e-5
    )


def test_more_images_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from bevgen.projection import cuda_transfer

    images = panoramas("uint8", 5)
    projector = Projector(size=SIZE, resolution=RESOLUTION, device="cuda")
    headings = [0.0, 10.0, 20.0, 30.0, 40.0]
    at_once = projector(images, heading=headings)
    monkeypatch.setattr(cuda_transfer, "CHUNK_BYTES", 2 * images[0].nbytes)
    np.testing.assert_array_equal(projector(images, heading=headings), at_once)


def test_convert(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, image in zip("ab", panoramas("uint8", 2), strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    settings = BevSettings(size=SIZE, resolution=RESOLUTION)
    convert(folder, tmp_path / "bev.h5", settings, scheduler="sync", device="cuda")
    drawn = Projector(size=SIZE, resolution=RESOLUTION, device="cuda")(panoramas("uint8", 2))
    np.testing.assert_array_equal(ShardSet(tmp_path / "bev.h5").read([0, 1]), drawn)


def test_a_failing_gpu_is_no_fault_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(panoramas("uint8", 1)[0]).save(folder / "a.png")
    settings = BevSettings(size=SIZE, resolution=RESOLUTION)
    from bevgen.projection import cuda_transfer

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(cuda_transfer, "_slots", fail)
        with pytest.raises(DeviceError, match=r"the GPU failed \(out of memory\)"):
            convert(folder, tmp_path / "bev.h5", settings, scheduler="sync", device="cuda")
    report = convert(folder, tmp_path / "bev.h5", settings, scheduler="sync", device="cuda")
    assert (report.rows, report.failures) == (1, 0)


def test_what_cannot_be_used() -> None:
    images = on_device(panoramas("uint8"))
    with pytest.raises(InputError, match="on a GPU"):
        Projector(size=SIZE, device="cpu")(images)
    with pytest.raises(InputError, match="on the device"):
        Projector(size=SIZE)(images, out=np.empty((3, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(InputError, match="out must be uint8 of shape"):
        Projector(size=SIZE)(images, out=on_device(np.empty((3, SIZE, SIZE, 3), np.float32)))
    with pytest.raises(InputError, match="on the device must be C-contiguous"):
        Projector(size=SIZE)(images[:, ::2, ::2])
    projector = Projector(size=SIZE)
    with pytest.raises(InputError, match=r"use bevgen\.to_chw"):
        projector.to_chw(panoramas("uint8"))
    with pytest.raises(InputError, match="float16 or float32"):
        projector.to_chw(images, dtype="float64")
    with pytest.raises(InputError, match="std finite and above 0"):
        projector.to_chw(images, std=0)


@pytest.mark.skipif(SIMULATED, reason="torch does not know the simulator's arrays")
def test_torch_tensors_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    images = torch.from_numpy(panoramas("uint8")).cuda()
    out = torch.zeros((3, SIZE, SIZE, 3), dtype=torch.uint8, device="cuda")
    projector = Projector(size=SIZE, resolution=RESOLUTION)
    made = torch.as_tensor(projector(images), device="cuda")
    projector(images, out=out)
    assert torch.equal(made, out)
    np.testing.assert_array_equal(
        out.cpu().numpy(),
        Projector(size=SIZE, resolution=RESOLUTION, device="cuda")(panoramas("uint8")),
    )
