from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bevgen import RefusedError
from georetrieval.cli import main
from georetrieval.data.dataset import Dataset
from georetrieval.models.checkpoints import checkpoint_hash
from georetrieval.report import write_report
from georetrieval.report.charts import Axis, apart, round_ticks, smooth, thin
from georetrieval.report.gallery import random_sample
from georetrieval.report.page import environment
from georetrieval.report.plan import Found, Plan, plan
from georetrieval.report.results import paired_difference
from georetrieval.report.training import curve
from georetrieval.retrieval.results import Evaluation
from georetrieval.run import Run
from tests.helpers.paths import DATA
from tests.helpers.reports import (
    GALLERY,
    NAMES,
    ODD,
    RANKS,
    Reported,
    colour,
    make_run,
    without_positions,
)
from tests.helpers.world import write_shards

PAPER = "https://arxiv.org/abs/2408.05475"
VOID = {"meta", "img", "br"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, tag: str | None = None, kind: str | None = None) -> list[Node]:
        return [
            node
            for node in self.walk()
            if tag in (None, node.tag)
            and (kind is None or kind in node.attributes.get("class", "").split())
        ]

    def one(self, tag: str | None = None, kind: str | None = None) -> Node:
        (node,) = self.all(tag, kind)
        return node

    @property
    def text(self) -> str:
        """Return what is read: a browser shows line breaks and indentation as one space."""
        text = "".join(c if isinstance(c, str) else c.text for c in self.children)
        return text if self.tag in ("pre", "script", "title") else re.sub("[ \n]+", " ", text)


class Tree(HTMLParser):
    """Reads a page and refuses what a lenient browser would mend."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document")
        self.open = [self.root]
        self.feed(page)
        self.close()
        assert self.open == [self.root], f"never closed: {[n.tag for n in self.open]}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def page_of(reported: Reported, *evaluations: Evaluation, **options) -> Node:
    out = reported.run / "report.html"
    write_report(
        Run(reported.run), Dataset(reported.data, reported.root), evaluations, out, **options
    )
    return Tree(out.read_text("utf-8")).root


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    return make_run(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def page(reported: Reported) -> Node:
    return page_of(reported, reported.evaluation)


@pytest.fixture
def fresh(tmp_path: Path) -> Reported:
    return make_run(tmp_path)


def by_id(page: Node, name: str) -> Node:
    (node,) = [n for n in page.walk() if n.attributes.get("id") == name]
    return node


def cards(page: Node) -> tuple[list[Node], list[Node]]:
    """Return the cards of the random sample and those of the failures."""
    sample, *failed = page.all("div", "cards")
    return sample.all("article"), failed[0].all("article") if failed else []


def name_of(card: Node) -> str:
    return card.one("header").one("code").text


def pixel(image: Node) -> np.ndarray:
    kind, _, code = image.attributes["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(code, validate=True)))
    size = (int(image.attributes["width"]), int(image.attributes["height"]))
    assert picture.format == "JPEG"
    assert picture.size == size
    return np.asarray(picture).reshape(-1, 3).mean(axis=0)


def same_colour(image: Node, place: int, view: str) -> bool:
    return bool(np.abs(pixel(image) - colour(place, view)).max() < 4)


def test_the_page_has_all_parts_in_order_and_the_links_reach_them(page: Node):
    sections = [node.attributes["id"] for node in page.all("section")]
    assert sections == ["training", "results", "evaluation-1", "notes"]
    ids = [n.attributes["id"] for n in page.walk() if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    links = [a.attributes["href"] for a in page.one("nav").all("a")]
    assert [link[1:] for link in links] == sections
    for section in page.all("section"):
        assert section.all("p") or section.all("li"), "a part without an explanation"


def test_the_page_loads_nothing(page: Node, reported: Reported):
    text = (reported.run / "report.html").read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"'<>)]*", text)) == {PAPER}
    for node in page.walk():
        for name in ("src", "href", "data", "action", "poster", "srcset", "background"):
            value = node.attributes.get(name, "#")
            assert value.startswith(("#", "data:image/jpeg;base64,")) or value == PAPER, value
    assert not page.all("link")
    assert not page.all("iframe")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|import ", text)
    policy = [m.attributes.get("content", "") for m in page.all("meta")]
    assert any("default-src 'none'" in content for content in policy)


def test_ids_that_are_markup_stay_text(page: Node, reported: Reported):
    # As text they come back whole, and none became an element: Tree would hold more scripts.
    assert ODD in [name_of(card) for card in cards(page)[0]]
    assert [s.text for s in page.all("script") if "alert" in s.text] == []
    assert len(page.all("script")) == 1
    tooltips = [t.text for t in page.one("svg", "plan").all("title")]
    assert any(t.startswith(ODD) for t in tooltips)
    alts = [i.attributes["alt"] for i in page.all("img")]
    assert f"panorama of {ODD}" in alts
    assert page.one("p", "about").text == "Tiny & <quick>"


def test_names_of_runs_data_and_evaluations_are_escaped(tmp_path: Path):
    reported = make_run(tmp_path, name='<i>"run" & $title')
    root = tmp_path / "<u>&city"
    reported.root.rename(root)
    reported = replace(reported, root=root)
    moved = replace(reported.evaluation, data=str(root), split="<s>")
    page = page_of(reported, moved, names=["$body <em>"])
    assert page.one("h1").text == '<i>"run" & $title'
    assert [n.tag for n in page.walk() if n.tag in ("u", "s", "em")] == []
    assert "<u>&city" in page.one("header", "top").text
    assert page.all("h2")[-2].text == "$body <em>"
    assert "<s>" in by_id(page, "evaluation-1").text


def test_an_id_that_is_no_valid_text_does_not_stop_the_report(fresh: Reported):
    bad = b"caf\xe9".decode("utf-8", "surrogateescape")
    odd = replace(fresh.evaluation, queries=[bad, *NAMES[1:]])
    page = page_of(fresh, odd)
    assert "caf?" in {name_of(card) for card in cards(page)[0]}


def test_the_table_holds_the_figures_with_intervals_weights_and_chance(page: Node):
    table = page.one("table")
    head = [cell.text for cell in table.one("thead").all("th")]
    assert head[1:] == ["R@1", "R@5", "R@10", "R@1%", "hit rate", "median rank", "median metres"]
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in table.all("tr")[1:]}
    assert list(rows) == [
        "panorama",
        "BEV",
        "both, equal weight",
        "both, weight chosen panorama 0.65",
        "chance",
    ]
    assert rows["BEV"][:2] == ["22.514.1 to 31.8", "23.515.1 to 32.8"]
    assert rows["both, weight chosen panorama 0.65"][4:] == [
        "41.533.1 to 50.8",
        "2.51 to 8",
        "76 m2.0 m to 1.5 km",
    ]
    # Of 50 tiles in random order: 1, 5, 10 and 1 of 50, and rank 25.5 on average.
    assert rows["chance"] == ["2.0", "10.0", "20.0", "2.0", "\N{EN DASH}", "25.5", "\N{EN DASH}"]


def test_the_lead_says_the_headline_and_chance(page: Node):
    lead = page.one("p", "lead").text
    assert "37.5 % of 8 queries" in lead
    assert f"{GALLERY} overhead tiles" in lead
    assert "Chance would be 2 %" in lead


def test_r_at_1_is_drawn_to_scale(page: Node):
    rows = by_id(page, "results").all("div", "row")
    assert len(rows) == 4
    point = rows[1].one("i", "point").attributes["style"]
    bar = rows[1].one("i", "bar").attributes["style"]
    assert point == "left:22.50%"
    assert bar == "left:14.10%;width:17.70%"
    assert rows[1].one("i", "chance").attributes["style"] == "left:2.00%"


def test_co_retrieval_is_compared_query_by_query(page: Node):
    # Against panorama alone, which finds p0 and p1: wins p2 and p5, loses p1.
    said = page.one("p", "verdict-line").text
    assert "better one alone (panorama): 2 queries won, 1 lost, R@1 +12.5 points" in said
    assert "holds zero" in said


def test_the_interval_of_a_difference_is_that_of_the_normal_law():
    change, low, high = paired_difference(120, 60, 1000)
    spread = math.sqrt((180 - 60**2 / 1000) / 1000**2) * 100  # of a mean of -1, 0 and 1
    assert change == pytest.approx(6.0)
    assert low == pytest.approx(6.0 - 1.96 * spread, abs=0.15)
    assert high == pytest.approx(6.0 + 1.96 * spread, abs=0.15)
    assert paired_difference(0, 0, 5) == (0, 0, 0)


def test_every_card_shows_its_own_pictures(page: Node):
    sample, failed = cards(page)
    assert len(sample) == 8
    for card in sample + failed:
        place = NAMES.index(name_of(card))
        (panorama,) = card.one("figure", "panorama").all("img")
        (bev,) = card.one("figure", "bev").all("img")
        assert same_colour(panorama, place, "panorama")
        assert same_colour(bev, place, "bev")
        for tile in card.one("ol").all("li"):
            shown = NAMES.index(tile.attributes["data-reference"])
            assert same_colour(tile.one("img"), shown, "satellite")


def test_the_right_match_is_marked_and_no_other(page: Node):
    sample, _ = cards(page)
    assert [name_of(card) for card in sample] == NAMES
    for card, rank in zip(sample, RANKS, strict=True):
        tiles = card.one("ol").all("li")
        marked = [k for k, tile in enumerate(tiles) if tile.all("b", "mark")]
        assert [tiles[k].attributes["data-reference"] for k in marked] == [name_of(card)]
        assert [k for k, t in enumerate(tiles) if "right" in t.attributes["class"]] == marked
        verdict = card.one("span", "verdict").text
        if rank == 0:
            assert (marked, verdict) == ([0], "found first")
        elif rank >= 5:
            assert marked == [5]
            assert "apart" in tiles[5].attributes["class"]
            assert tiles[5].one("span", "note").text.strip() == f"rank {rank + 1}"
        if rank:
            assert verdict == f"right one ranked {rank + 1} of {GALLERY}"
    assert [len(card.one("ol").all("li")) for card in sample] == [5, 5, 5, 5, 6, 5, 6, 6]
    assert sample[1].one("ol").all("li")[2].one("span", "note").text == "3 0.720"
    assert "rank by panorama 1 · BEV 3 · both, equal weight 3" in sample[1].one("header").text


def test_a_tie_is_told_and_counts_against_the_model(page: Node):
    tile = cards(page)[0][3].one("ol").all("li")[0]
    assert tile.attributes["data-reference"] == "p3"
    assert tile.one("span", "note").text == "tied, ranks 2 0.900"


def test_failures_come_worst_first(page: Node):
    _, failed = cards(page)
    # By rank, of equals (p4 and p6) the one that is farther off.
    assert [name_of(card) for card in failed] == ["p6", "p4", "p7", "p1", "p3"]
    assert "best match 1.5 km away" in failed[0].one("header").text


def test_without_failures_the_page_says_so(fresh: Reported):
    perfect = [replace(m, ranks=[0] * 8) for m in fresh.evaluation.methods]
    page = page_of(fresh, replace(fresh.evaluation, methods=perfect))
    sample, failed = cards(page)
    assert (len(sample), failed) == (8, [])
    assert "every query found its tile first" in page.text
    assert not page.one("svg", "plan").all("g", "miss")


def test_the_sample_is_the_same_each_time_and_fair(reported: Reported):
    many = replace(reported.evaluation, queries=[f"q{k}" for k in range(400)])
    sample = random_sample(many, 12)
    assert sample == random_sample(many, 12)
    assert len(set(sample)) == 12
    assert sample == sorted(sample)
    halves = [k < 200 for k in random_sample(many, 200)]
    assert 80 < sum(halves) < 120


def test_the_plan_counts_hits_and_misses_of_each_method(page: Node):
    figure = page.one("figure", "city")
    layers = figure.one("svg").all("g", "layer")
    assert [len(layer.all("g", "hit")) for layer in layers] == [2, 2, 3, 3]
    assert [len(layer.all("g", "miss")) for layer in layers] == [6, 6, 5, 5]
    assert ["off" in layer.attributes["class"] for layer in layers] == [True, True, True, False]
    pressed = [b.attributes["aria-pressed"] for b in figure.all("button")]
    assert pressed == ["false", "false", "false", "true"]
    assert figure.all("button")[3].text == "both, weight chosen5 missed"
    shown = {title.text for title in layers[3].all("title")}
    assert "p0: found first" in shown
    assert "p6: taken for p7, 1.5 km away; the right tile ranks 21" in shown


def drawn(city: Plan) -> Node:
    charts = environment().from_string("{% import 'charts.html' as c %}{{ c.plan(city) }}")
    return Tree(charts.render(city=city)).root


def circles(drawing: Node) -> list[tuple[float, float]]:
    return [(float(c.attributes["cx"]), float(c.attributes["cy"])) for c in drawing.all("circle")]


@pytest.mark.parametrize("longitude", [11.0, 179.995, -179.999])
def test_the_plan_is_to_scale_with_north_up(longitude: float):
    latitude, metres = 60.0, 1000.0
    # On a sphere of the mean radius a degree of latitude is 111195.08 m, one of longitude the
    # half of it at 60 degrees north.
    north, east = metres / 111195.08, metres / (111195.08 / 2)
    places = [(0, 0), (north, 0), (0, east), (north, east)]
    there = [
        (latitude + a, (longitude + b + 180) % 360 - 180) for a, b in places
    ]  # over the date line, too
    found = [Found(place, None, True, "") for place in there]
    drawing = drawn(plan("", there, [found]))
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = circles(drawing)
    side = x2 - x0
    assert side == pytest.approx(588, abs=1)  # the width between the margins
    assert (x1 - x0, y2 - y0) == pytest.approx((0, 0), abs=0.5)
    assert y0 - y1 == pytest.approx(side, rel=0.002)
    assert (x3, y3) == pytest.approx((x2, y1), abs=0.5)
    bar = drawing.one("g", "scale")
    length = float(re.findall(r"h([\d.]+)", bar.one("path").attributes["d"])[0])
    assert bar.one("text").text == "200 m"
    assert length / side == pytest.approx(0.2, abs=0.001)


def test_a_miss_has_a_line_from_the_true_place_to_the_found_one():
    found = [
        Found((48.0, 11.0), (48.01, 11.01), False, "off"),
        Found((48.01, 11.0), (48.0, 11.01), True, "on"),
    ]
    drawing = drawn(plan("", [(48.01, 11.01)], [found]))
    line = drawing.one("g", "miss").one("path").attributes["d"]
    x, y, to_x, to_y = map(float, re.findall(r"[\d.]+", line))
    marks = dict(zip([t.text for t in drawing.all("title")], circles(drawing), strict=True))
    assert marks["off"] == (x, y)
    assert to_x > x
    assert to_y < y
    assert not drawing.one("g", "hit").all("path")


@pytest.mark.parametrize("places", [[(48.0, 11.0)], [(48.0, 11.0), (48.0, 11.5)]])
def test_a_lone_place_or_a_straight_street_makes_a_plan(places):
    drawing = drawn(plan("", places, [[Found(p, None, True, "") for p in places]]))
    *_, width, height = map(float, drawing.one("svg").attributes["viewbox"].split())
    for x, y in circles(drawing):
        assert 0 < x < width
        assert 0 < y < height


def test_large_evaluations_are_thinned_on_the_plan_and_say_so(fresh: Reported):
    count = 2000
    random = np.random.default_rng(0)
    places = np.stack([48 + random.random(count), 11 + random.random(count)], axis=1).tolist()
    names = [f"q{k}" for k in range(count)]
    one = fresh.evaluation.methods[0]
    long = replace(
        one,
        ranks=[0] * count,
        top=[[name] * 5 for name in names],
        scores=[[0.5] * 5] * count,
        metres=[1.0] * count,
    )
    many = replace(
        fresh.evaluation,
        queries=names,
        references=names,
        positions=[tuple(p) for p in places],
        reference_positions={},
        methods=[long],
    )
    page = page_of(fresh, many)
    assert len(page.one("svg", "plan").all("circle")) == 1500
    assert "1,500 queries drawn at random, of 2,000" in page.text


def test_only_bev(fresh: Reported):
    (fresh.root / "panorama.h5").unlink()
    (bev,) = [m for m in fresh.evaluation.methods if m.name == "bev"]
    solo = replace(fresh.evaluation, methods=[bev], checkpoints={"bev": "bb" * 8})
    page = page_of(fresh, solo)
    assert "Given a bird\N{RIGHT SINGLE QUOTATION MARK}s-eye view" in page.one("p", "lead").text
    assert "nothing to compare" in page.one("p", "verdict-line").text
    sample, _ = cards(page)
    assert not page.all("figure", "panorama")
    assert same_colour(sample[1].one("figure", "bev").one("img"), 1, "bev")
    assert not page.all("span", "others")
    assert "2 queries for training" in page.text


def test_without_positions_there_is_no_plan_and_no_metres(fresh: Reported):
    page = page_of(fresh, without_positions(fresh.evaluation))
    assert "Positions are not known" in page.text
    assert not page.all("svg", "plan")
    assert "median metres" not in [th.text for th in page.one("table").all("th")]
    assert "How far off on the map?" not in page.text
    assert "away" not in cards(page)[0][1].one("header").text


def test_an_empty_run_and_no_shards_still_make_a_page(tmp_path: Path, fresh: Reported):
    bare = replace(fresh, run=tmp_path / "bare", root=tmp_path / "nowhere")
    bare.run.mkdir()
    page = page_of(bare)
    assert "Not evaluated yet" in page.one("p", "lead").text
    assert "no metrics.jsonl" in by_id(page, "training").text
    assert [s.attributes["id"] for s in page.all("section")] == ["training", "results", "notes"]
    gone = replace(fresh.evaluation, data=str(tmp_path / "gone"))
    page = page_of(bare, gone)
    assert f"{tmp_path / 'gone'} is gone" in page.text
    assert not page.all("img")
    assert cards(page)[0][0].one("ol").all("span", "nothing")[0].text == "p0"


def test_a_place_that_the_shards_lack_is_named_instead(fresh: Reported):
    page = page_of(fresh, replace(fresh.evaluation, queries=["elsewhere", *NAMES[1:]]))
    card = cards(page)[0][0]
    assert card.one("figure", "panorama").one("span", "nothing").text == "elsewhere"
    assert len(card.one("ol").all("img")) == 5


def test_a_damaged_shard_costs_its_pictures_only(fresh: Reported, caplog):
    (fresh.root / "bev.h5").write_bytes(b"no shard")
    page = page_of(fresh, fresh.evaluation)
    assert "bev.h5" in caplog.text
    assert len(page.all("figure", "panorama")) == 13
    assert not page.all("figure", "bev")


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_are_shown(fresh: Reported, channels: int):
    images = np.full((8, 10, 10, channels), 90, np.uint8)
    (fresh.root / "satellite.h5").unlink()
    write_shards(fresh.root / "satellite.h5", "satellite", NAMES, images)
    page = page_of(fresh, fresh.evaluation)
    assert pixel(page.all("li", "right")[0].one("img")) == pytest.approx([90, 90, 90], abs=3)


def test_several_evaluations_stand_side_by_side(fresh: Reported):
    unknown = replace(fresh.evaluation, heading="unknown")
    page = page_of(fresh, fresh.evaluation, unknown, unknown)
    titles = [h.text for h in page.all("h2")]
    assert titles[2:5] == ["test", "test, heading unknown", "test, heading unknown (2)"]
    groups = by_id(page, "results").all("div", "group")
    assert [len(g.all("div", "row")) for g in groups] == [4, 4, 4]
    assert "turned by a random angle" not in by_id(page, "evaluation-1").text
    assert "turned by a random angle" in by_id(page, "evaluation-2").text


def test_pictures_come_from_the_data_that_was_searched(fresh: Reported, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    write_shards(other / "bev.h5", "bev", NAMES, np.full((8, 9, 9, 3), 17, np.uint8))
    page = page_of(fresh, fresh.evaluation, replace(fresh.evaluation, data=str(other)))
    assert [h.text for h in page.all("h2")][2:4] == ["city, test", "other, test"]
    image = by_id(page, "evaluation-2").all("figure", "bev")[0].one("img")
    assert pixel(image) == pytest.approx([17, 17, 17], abs=2)


def test_tested_places_that_were_trained_on_raise_an_alarm(fresh: Reported):
    # p0 and p1 belong to the training split, and the evaluation searched them, too.
    page = page_of(fresh, fresh.evaluation)
    assert page.one("b", "alert").text == "2 of these were trained on"
    one = fresh.evaluation
    unseen = replace(
        one,
        queries=["p3"],
        references=["p3"],
        positions=one.positions[3:4],
        methods=[
            replace(
                m,
                ranks=m.ranks[3:4],
                top=m.top[3:4],
                scores=m.scores[3:4],
                metres=m.metres[3:4],
            )
            for m in one.methods
        ],
    )
    page = page_of(fresh, unseen)
    assert not page.all("b", "alert")
    assert "none of these was trained on" in page.one("header", "top").text


@pytest.mark.parametrize(("split", "warned"), [("val", 1), ("train", 1), ("test", 0)])
def test_splits_that_the_model_was_made_with_raise_an_alarm(fresh: Reported, split, warned):
    page = page_of(fresh, replace(fresh.evaluation, split=split))
    assert len(page.all("p", "alert")) == warned


def test_figures_of_other_weights_raise_an_alarm(fresh: Reported):
    weights = fresh.run / "bev.safetensors"
    weights.write_bytes(b"newer")
    page = page_of(fresh, fresh.evaluation)
    assert "made with other weights" in page.text
    assert checkpoint_hash(weights) in page.one("dl").text
    same = replace(fresh.evaluation, checkpoints={"bev": checkpoint_hash(weights)})
    assert "made with other weights" not in page_of(fresh, same).text


def test_the_header_tells_networks_splits_and_time(page: Node):
    facts = page.one("dl").text
    for said in ("test_convnext2", "from random weights", "4 epochs, 16 pairs a batch, float32"):
        assert said in facts
    assert "2 queries for training" in facts
    assert "1 query for validation" in facts
    assert "14 November 2023" in facts  # 1.7e9 seconds after 1970
    assert "22:13 to 15 November, 00:12 UTC" in facts
    assert "bb" * 8 in facts


def test_the_header_invents_no_training_of_imported_weights(fresh: Reported):
    Run(fresh.run).metrics_path.unlink()
    facts = page_of(fresh, fresh.evaluation).one("dl").text
    assert "test_convnext2" in facts
    assert "weights from elsewhere" in facts
    assert "random weights" not in facts
    assert "epochs" not in facts


def test_the_curves_show_each_branch(page: Node):
    panels = by_id(page, "training").all("figure", "panel")
    titles = [p.one("figcaption").text for p in panels]
    assert len(panels) == 4
    assert titles[0].startswith("panorama branch, loss 120 steps")
    assert "best R@1 39.8 after epoch 4" in titles[1]
    for panel in panels[1::2]:
        assert len(panel.all("polyline")) == 3
        assert len(panel.all("circle")) == 12
        assert "R@1 39.8 % at 4" in [t.text for t in panel.all("title")]
    level = [t.text for t in panels[0].all("text", "end")]
    assert "guessing among 16" in level
    ticks = [t.text for t in panels[0].all("text", "mid")]
    assert ticks == ["0", "1", "2", "3", "4", "epoch"]


def test_a_curve_is_one_figure_of_one_branch_where_it_is_a_number():
    def line(epoch: float, loss: float | None, branch: str = "bev"):
        return {"branch": branch, "epoch": epoch, "loss": loss, "time": 1.0}

    lines = [line(0, 5.0), line(0.5, 4.0), line(1.0, 3.5)]
    lines += [line(0.5, 9.0, "panorama"), line(1.5, math.nan), line(2.0, 2.0), line(2.5, None)]
    lines += [{"branch": "bev", "epoch": 1, "R@1": 10.0}]
    assert curve(lines, "bev", "loss") == [(0, 5.0), (0.5, 4.0), (1.0, 3.5), (2.0, 2.0)]
    assert curve(lines, "bev", "R@1") == [(1, 10.0)]


def test_smoothing_is_a_centred_mean():
    values = np.random.default_rng(0).normal(size=200)
    points = list(enumerate(values.tolist()))
    for x, y in smooth(points):
        k = int(x)
        assert y == pytest.approx(values[max(k - 5, 0) : k + 6].mean())
    assert smooth(points[:1]) == points[:1]


def test_thinning_keeps_every_spike():
    points = [(float(k), 0.0) for k in range(50_000)]
    points[31_234] = (31_234.0, 9.0)
    points[7] = (7.0, -9.0)
    kept = thin(points)
    assert len(kept) <= 480
    assert {(31_234.0, 9.0), (7.0, -9.0)} <= set(kept)
    assert kept == sorted(kept)


@given(st.floats(-20, 20), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_within(start: float, span: float):
    low = start * span
    ticks = np.array(round_ticks(low, low + span))
    assert 2 <= len(ticks) <= 7
    assert ticks.min() >= low - 1e-6 * span
    assert ticks.max() <= low + span + 1e-6 * span
    step = np.diff(ticks)[0]
    assert np.diff(ticks) == pytest.approx(step, rel=1e-6)
    assert np.abs(ticks / step - np.round(ticks / step)).max() < 1e-6
    power = 10.0 ** np.floor(np.log10(step * 1.000001))
    assert min(abs(step / power - digit) for digit in (1, 2, 5)) < 1e-6


def test_a_logarithmic_axis():
    axis = Axis("", 1.0, 300.0, log=True)
    assert axis.ticks() == [1, 2, 5, 10, 20, 50, 100, 200]
    assert Axis("", 1.0, 20_000.0, log=True).ticks() == [1, 10, 100, 1000, 10_000]
    assert axis.place(1) == 0
    assert axis.place(300) == 1
    assert axis.place(math.sqrt(300)) == pytest.approx(0.5)
    assert axis.place(0) == 0
    assert Axis("", 1.0, 1.0, log=True).place(1) == 0


@given(st.lists(st.floats(0, 200), min_size=1, max_size=3))
def test_labels_keep_their_order_and_distance(places: list[float]):
    moved = apart(places, 15.0)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= 14.9).all()
    assert sum(moved) == pytest.approx(sum(places))


def test_real_photographs_keep_the_page_small(tmp_path: Path, fresh: Reported):
    views = {"panorama": (256, 512), "bev": (256, 256), "satellite": (256, 256)}
    names = [f"q{k}" for k in range(40)]
    photos = [Image.open(path).convert("RGB") for path in sorted(DATA.glob("street/*.jpg"))]
    random = np.random.default_rng(0)
    root = tmp_path / "photos"
    root.mkdir()
    for view, (height, width) in views.items():
        images = []
        for k in range(len(names)):
            photo = photos[k % len(photos)]
            x, y = random.integers(0, (photo.width - width, photo.height - height))
            images.append(np.asarray(photo.crop((x, y, x + width, y + height))))
        write_shards(root / f"{view}.h5", view, names, np.stack(images))
    one = replace(
        fresh.evaluation.methods[0],
        ranks=[20] * 40,
        top=[[names[(k + j) % 40] for j in range(1, 6)] for k in range(40)],
        scores=[[0.5] * 5] * 40,
        metres=[None] * 40,
    )
    full = replace(fresh.evaluation, data=str(root), queries=names, references=names, methods=[one])
    full = replace(full, positions=[None] * 40)
    page = page_of(fresh, full, full, full)
    assert len(page.all("article")) == 48
    assert len(page.all("img")) == 48 * 8
    assert (fresh.run / "report.html").stat().st_size < 6e6


def test_a_place_that_cannot_be_written_is_named(fresh: Reported, tmp_path: Path):
    out = tmp_path / "no" / "report.html"
    with pytest.raises(RefusedError, match=r"written beside .*report\.html: No such file"):
        write_report(Run(fresh.run), Dataset(fresh.data, fresh.root), [], out)


def run_command(*words: object) -> int:
    with pytest.raises(SystemExit) as done:
        main(["report", *map(str, words)])
    return int(done.value.code or 0)


def test_the_command_reports_all_evaluations_with_test_first(fresh: Reported, capsys):
    for name in ("across", "test", "unknown-heading"):
        fresh.evaluation.save(fresh.run / f"evaluation-{name}.json")
    assert run_command("--run", fresh.run, "--data", fresh.root) == 0
    out = fresh.run / "report.html"
    assert capsys.readouterr().out.startswith(f"{out}: ")
    page = Tree(out.read_text("utf-8")).root
    assert [h.text for h in page.all("h2")][2:5] == ["test", "across", "unknown-heading"]
    assert len(page.all("img")) > 100


@pytest.mark.parametrize("text", ["{}", "[1]", '{"methods": []}', "broken", json.dumps([])])
def test_the_command_names_an_evaluation_that_it_cannot_read(fresh: Reported, capsys, text: str):
    (fresh.run / "evaluation-test.json").write_text(text)
    assert run_command("--run", fresh.run, "--data", fresh.root) == 1
    error = capsys.readouterr().err
    assert "evaluation-test.json is not an evaluation that this version can read" in error
    assert "evaluate again" in error


def test_the_command_says_where_there_is_no_run(tmp_path: Path, capsys):
    assert run_command("--run", tmp_path) == 1
    assert "holds no run" in capsys.readouterr().err
