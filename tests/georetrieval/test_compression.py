"""JPEG's losses in torch, against Pillow's encoder and decoder on real images."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from georetrieval.transforms.jpeg import compress, scaled_tables
from tests.helpers.paths import DATA

QUALITIES = (50, 75, 90, 95, 100)
SIZES = [(256, 256), (140, 384), (131, 77), (17, 33)]


def picture(name: str, height: int, width: int) -> NDArray[np.uint8]:
    with Image.open(next(DATA.rglob(name))) as image:
        whole = np.asarray(image.convert("RGB"))
    row, column = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return whole[row : row + height, column : column + width].copy()


def by_pillow(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def ours(images: NDArray[np.uint8], qualities: tuple[int, ...]) -> NDArray[np.float32]:
    floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (compress(floats, torch.tensor(qualities)) * 255).permute(0, 2, 3, 1).numpy()


def error(a: NDArray, b: NDArray) -> float:
    return float(((a.astype(float) - b) ** 2).mean())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["d1.jpg", "2.jpg", "blender_city.png", "npm_workshop.png"])
def test_it_loses_what_pillow_loses(name, size):
    image = picture(name, *size)
    found = ours(np.stack([image] * len(QUALITIES)), QUALITIES)
    assert found.shape == (len(QUALITIES), *image.shape)
    for quality, one in zip(QUALITIES, found, strict=True):
        expected = by_pillow(image, quality)
        # A rounding that falls the other way moves a block by a step; all else is equal.
        assert error(one, expected) < 255**2 / 10**4.4, quality  # 44 dB
        assert error(one, expected) < 0.5 + error(image, expected) / 5
        assert not np.array_equal(one, image)


def test_each_image_has_its_own_quality():
    image = picture("d1.jpg", 64, 64)
    alone = [ours(image[None], (quality,))[0] for quality in (100, 60, 90)]
    together = ours(np.stack([image] * 3), (100, 60, 90))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    losses = [error(one, image) for one in together]
    assert losses[1] > losses[2] > losses[0]


def test_the_tables_are_those_that_pillow_writes():
    zigzag = sorted(
        range(64),
        key=lambda k: (s := k // 8 + k % 8, k // 8 if s % 2 else k % 8),
    )
    image = Image.new("RGB", (16, 16))
    for quality in range(1, 101):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        written = Image.open(file).quantization
        tables = scaled_tables(torch.tensor([quality]))[0]
        for k in (0, 1):
            own = tables[k].int()
            assert sorted(own.tolist()) == sorted(written[k])
            assert own.tolist() == list(written[k]) or own[zigzag].tolist() == list(written[k])


def test_flat_colours_stay():
    """Within the rounding of YCbCr."""
    colours = torch.randint(0, 256, (200, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    images = (colours / 255).expand(-1, -1, 24, 24)
    found = compress(images, torch.full((200,), 100))
    assert ((found - images) * 255).abs().max() <= 2.01
    assert torch.equal(found, found[..., :1, :1].expand_as(found))


def test_all_of_it_stays_on_the_images_device():
    """Torch checks devices without a GPU, on tensors that hold nothing."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    quality = torch.tensor([90, 95])
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = compress(torch.empty(2, 3, 41, 56, device="cuda"), quality)
    assert found.device.type == "cuda"
    assert found.shape == (2, 3, 41, 56)
