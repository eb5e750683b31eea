from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bevgen import InputError, Made, RefusedError, ShardSet, verify, write_shards

IDS = [f"t{k:03d}" for k in range(25)]
SETTINGS = {"resolution": 0.2}


def picture(number: int) -> Made | str:
    if number % 10 == 7:
        return "nothing there"
    image = np.full((4, 6, 3), number, np.uint8)
    valid = np.ones((4, 6), bool)
    valid[0] = number % 2
    return Made(image, valid, {"latitude": 48 + number, "longitude": 11.0}, "2024")


@pytest.mark.parametrize("shard_size", [10, 256])
def test_what_is_made_is_stored_in_order_with_masks_columns_and_reasons(tmp_path, shard_size):
    out, heard = tmp_path / "a.h5", []
    written = write_shards(
        out, "satellite", (4, 6, 3), SETTINGS, IDS, picture,
        shard_size=shard_size, threads=3, on_progress=lambda *done: heard.append(done),
    )  # fmt: skip
    assert (written.rows, written.failures, written.made) == (23, 2, 25)
    assert heard[-1] == (25, 25)
    shards = ShardSet(out)
    kept = [k for k in range(25) if k % 10 != 7]
    assert shards.ids == [IDS[k] for k in kept]
    assert shards.kind == "satellite"
    assert shards.settings == SETTINGS
    assert [image[0, 0, 0] for image in shards] == kept
    np.testing.assert_array_equal(shards.columns["latitude"], [48.0 + k for k in kept])
    assert [failure.reason for failure in shards.failures] == ["nothing there"] * 2
    assert not verify(out).problems
    again = write_shards(out, "satellite", (4, 6, 3), SETTINGS, IDS, picture, shard_size=shard_size)
    assert again.made == 0


def test_a_stopped_call_goes_on_with_what_is_missing(tmp_path):
    out: Path = tmp_path / "a.h5"
    asked: list[int] = []

    def stops(number: int) -> Made | str:
        if number == 15:
            raise KeyboardInterrupt
        asked.append(number)
        return picture(number)

    with pytest.raises(KeyboardInterrupt):
        write_shards(out, "map", (4, 6, 3), SETTINGS, IDS, stops, shard_size=10)
    assert not out.exists()
    asked.clear()

    def counts(number: int) -> Made | str:
        asked.append(number)
        return picture(number)

    written = write_shards(out, "map", (4, 6, 3), SETTINGS, IDS, counts, shard_size=10)
    assert sorted(asked) == list(range(10, 25))
    assert written.rows == 23
    assert not list(tmp_path.rglob("*.part*"))


def test_other_settings_and_other_images_are_refused(tmp_path):
    out = tmp_path / "a.h5"
    write_shards(out, "map", (4, 6, 3), SETTINGS, IDS, picture)
    with pytest.raises(RefusedError, match=r"resolution: 0\.2 there, 0\.3 now"):
        write_shards(out, "map", (4, 6, 3), {"resolution": 0.3}, IDS, picture)
    with pytest.raises(RefusedError, match="other images"):
        write_shards(out, "map", (4, 6, 3), SETTINGS, IDS[:5], picture)
    replaced = write_shards(out, "map", (4, 6, 3), SETTINGS, IDS[:5], picture, overwrite=True)
    assert replaced.rows == 5
    with pytest.raises(InputError, match="unique"):
        write_shards(tmp_path / "b.h5", "map", (4, 6, 3), SETTINGS, ["a", "a"], picture)
