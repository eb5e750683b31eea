"""What a report counts, and how it groups what was skipped."""

import io
import math
from pathlib import Path

from rich.console import Console

from bevgen.cli.running import _print_report
from bevgen.conversion.report import Report, ShardReport
from bevgen.conversion.settings import BevSettings
from bevgen.shards import Failure, ShardSet
from tests.helpers.image_files import encoded, exif, scene
from tests.helpers.runs import bevgen as run_bevgen


def shard(*reasons: str) -> ShardReport:
    failures = tuple(Failure(f"{k}.jpg", k, reason) for k, reason in enumerate(reasons))
    return ShardReport(0, failures, 0, 0, 0, 0, {})


def test_skipped_files_are_grouped_by_cause_and_not_by_their_numbers() -> None:
    report = Report(Path("o.h5"))
    report.add(shard("640 x 480 pixels are not 2:1", "empty file", "650 x 480 pixels are not 2:1"))
    report.add(shard("no image; it begins with b'a\\'b'", "no image; it begins with b'c d'"))
    report.add(shard("640 x 480 pixels are not 2:1", "empty file"))
    assert report.reasons == {
        "... x 480 pixels are not 2:1": (3, ["0.jpg", "2.jpg", "0.jpg"]),
        "empty file": (2, ["1.jpg", "1.jpg"]),
        "no image; it begins with ...": (2, ["0.jpg", "1.jpg"]),
    }


def test_summary_says_how_many_causes_it_leaves_out() -> None:
    """Fifteen causes, each an error of its own, and eight sizes that are one."""
    report = Report(Path("o.h5"), seconds=1.0)
    report.add(shard(*(f"cause {letter}" for letter in "abcdefghijklmno")))
    report.add(shard(*(f"{k} x 9 pixels" for k in range(8))))
    console = Console(record=True, width=200, file=io.StringIO())
    _print_report(console, report, BevSettings.kind)
    lines = console.export_text().splitlines()
    assert "  8 x ... x 9 pixels (0.jpg, 1.jpg, 2.jpg)" in lines
    assert "  and 6 for 6 more reasons" in lines


def test_images_without_a_position_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    place = {1: "N", 2: (49.0, 0.0, 0.0), 3: "W", 4: (1.0, 0.0, 0.0)}
    for name, gps in (("a", place), ("b", {17: 90.0}), ("c", {})):
        (folder / f"{name}.jpg").write_bytes(encoded(scene(), "JPEG", exif=exif(gps=gps)))
    out = tmp_path / "o.h5"
    done = run_bevgen("convert", "-i", folder, "-o", out, "--size", 16, "--json", "--workers", 1)
    assert '"unknown_positions": 2' in done.stdout
    assert "2 images have no position" in done.stderr


def test_positions_without_hemispheres_are_said_and_not_used(tmp_path: Path) -> None:
    """Of five, b lacks them, d lacks a position altogether, and the table says that of e."""
    folder = tmp_path / "in"
    folder.mkdir()
    places = {"a": "+48.1 11.5", "b": "48.1 11.5", "c": "48.1 -11.5", "d": None, "e": "48.1 11.5"}
    for name, place in places.items():
        latitude, longitude = place.split() if place else ("", "")
        xmp = f"""<d xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="{latitude}"
            exif:GPSLongitude="{longitude}"/>"""
        (folder / f"{name}.jpg").write_bytes(encoded(scene(), "JPEG", xmp=xmp.encode()))
    (tmp_path / "poses.csv").write_text("file,latitude,longitude\ne.jpg,48.1,11.5\n")
    words = ("convert", "-i", folder, "-o", tmp_path / "o.h5", "--size", 16, "--json", "-v")
    done = run_bevgen(*words, "--workers", 1, "--poses", tmp_path / "poses.csv")
    assert '"unknown_positions": 2' in done.stdout
    assert '"unsigned_positions": 1' in done.stdout
    assert "b.jpg: nothing says the hemispheres of 48.1, 11.5 in its XMP" in done.stderr
    assert "1 of them has one in XMP without its hemispheres" in done.stderr
    with ShardSet(tmp_path / "o.h5") as shards:
        found = dict(zip(shards.ids, shards.columns["longitude"], strict=True))
    assert {name for name, value in found.items() if math.isnan(value)} == {"b", "d"}
    assert (found["a"], found["c"], found["e"]) == (11.5, -11.5, 11.5)


def test_a_bev_finer_than_its_panorama_is_said(tmp_path: Path) -> None:
    """2 m above the ground a row of 32 covers 0.2 m below the camera, one of 512 covers 0.012 m."""
    (tmp_path / "in").mkdir()
    for name, height in (("coarse", 32), ("fine", 512)):
        (tmp_path / f"in/{name}.jpg").write_bytes(encoded(scene(height, 2 * height), "JPEG"))
    words = ("convert", "-i", tmp_path / "in", "--size", 16, "--workers", 1)
    done = run_bevgen(*words, "-o", tmp_path / "a.h5", "--resolution", 0.06)
    assert "1 panorama is coarser than its BEV everywhere" in done.stderr
    done = run_bevgen(*words, "-o", tmp_path / "b.h5", "--resolution", 0.25)
    assert "coarser than" not in done.stderr


def test_the_published_script_names_a_way_out_for_crops(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(encoded(scene(112, 616), "JPEG"))
    words = ("convert", "-i", tmp_path / "in", "-o", tmp_path / "o.h5", "--size", 16)
    done = run_bevgen(*words, "--preset", "ep-bev", expect=1)
    assert "616 x 112 pixels are not 2:1, and --compat ep-bev" in done.stderr
    assert "preset of its dataset, such as cvusa, in its place" in done.stderr
    run_bevgen(*words, "--preset", "cvusa", "--overwrite", "--size", 256)
