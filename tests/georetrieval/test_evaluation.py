import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from bevgen import ImageSettings, ShardSet, convert
from georetrieval.config import DataSettings, EncoderSettings
from georetrieval.data.dataset import Dataset
from georetrieval.data.pairs import join
from georetrieval.errors import CheckpointError, DataError
from georetrieval.models.branch import Branch
from georetrieval.models.checkpoints import checkpoint_hash, load_branch, save_branch
from georetrieval.retrieval.embedding import Embeddings, embed_rows
from georetrieval.retrieval.evaluation import evaluate, fuse
from georetrieval.retrieval.results import Evaluation, as_table
from georetrieval.run import Run
from tests.helpers.world import World, make_world, tiny_settings, write_shards

ENCODER = EncoderSettings(name="test_convnext2", pretrained=False)
CPU = torch.device("cpu")
DATA = DataSettings()


def untrained(run: Path, *names: str, seed: int = 0, model: str = ENCODER.name) -> Path:
    """Write random branches; even these match colours better than chance."""
    run.mkdir(exist_ok=True)
    for name in names:
        torch.manual_seed(seed)
        encoder = ENCODER.model_copy(update={"name": model})
        save_branch(run / f"{name}.safetensors", Branch(encoder), encoder, name)
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained(tmp_path / "run", "panorama", "bev")


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# Vectors


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_dot_products_of_fused_vectors_are_weighted_similarities(weight):
    p, b, sp, sb = (unit(20, d, seed=d) for d in (8, 5, 8, 5))
    q, g = fuse(p, b, weight), fuse(sp, sb, weight)
    torch.testing.assert_close(q @ g.T, weight * (p @ sp.T) + (1 - weight) * (b @ sb.T))
    torch.testing.assert_close(q.norm(dim=1), torch.ones(20))


def test_embedding_in_batches_and_on_the_way_changes_nothing(world):
    shards = ShardSet(world.root / "satellite.h5")
    torch.manual_seed(0)
    encoder = Branch(ENCODER).encoder.train()
    rows = np.array([5, 3, 90, 0, 7, 7])
    heard: list[int] = []
    found = embed_rows(
        encoder, shards, rows, None, device=CPU, batch_size=4, on_progress=heard.append
    )
    assert encoder.training
    assert heard == [4, 6]
    images = torch.from_numpy(shards.read(rows)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = encoder.eval()(images)
    torch.testing.assert_close(found, expected)


def test_embeddings_survive_their_file(tmp_path):
    positions = np.array([[48.0, 11.0], [np.nan, np.nan]])
    kept = Embeddings(["ä/1", "b"], unit(2, 3).numpy(), positions, "c0ffee", "da7a")
    kept.save(tmp_path / "e.npz")
    found = Embeddings.load(tmp_path / "e.npz")
    assert (found.ids, found.checkpoint, found.data) == (kept.ids, "c0ffee", "da7a")
    np.testing.assert_array_equal(found.matrix, kept.matrix)
    np.testing.assert_array_equal(found.positions, positions)
    assert list(tmp_path.iterdir()) == [tmp_path / "e.npz"]


@pytest.mark.parametrize("content", [b"", b"rubbish", b"PK\x03\x04 cut"])
def test_damaged_embeddings_are_named(tmp_path, content):
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"e\.npz"):
        Embeddings.load(tmp_path / "e.npz")


# Checkpoints


def test_checkpoints_hold_weights_and_settings(tmp_path):
    settings = EncoderSettings(name="test_vit", pretrained=False, query_size=(32, 64))
    branch = Branch(settings)
    path = tmp_path / "panorama.safetensors"
    save_branch(path, branch, settings, "panorama")
    found, found_settings, kind = load_branch(path)
    assert (found_settings, kind) == (settings, "panorama")
    assert not found.training
    images = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(found.encoder(images), branch.eval().encoder(images))
    again = tmp_path / "again.safetensors"
    save_branch(again, found, found_settings, kind)
    assert checkpoint_hash(again) == checkpoint_hash(path)
    with torch.no_grad():
        found.logit_scale.add_(1e-6)
    save_branch(again, found, found_settings, kind)
    assert checkpoint_hash(again) != checkpoint_hash(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    from safetensors.torch import save_file

    wrong = tmp_path / "bev.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_branch(wrong)
    wrong.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_branch(wrong)
    save_file({"x": torch.zeros(1)}, wrong)
    with pytest.raises(CheckpointError, match="not a checkpoint of georetrieval"):
        load_branch(wrong)
    for about, said in (
        ('{"kind": "bev", "encoder": {"name": "test_vit"}}', "does not fit"),
        ('{"kind": "bev", "encoder": {"name": "test_vit", "patches": 3}}', "cannot be built"),
        ('{"kind": "bev", "encoder": {"name": "of another timm"}}', "cannot be built"),
        ('{"kind": "bev"}', "cannot be built"),
        ("cut {", "cannot be built"),
    ):
        save_file({"x": torch.zeros(1)}, wrong, {"georetrieval-branch": about})
        with pytest.raises(CheckpointError, match=said):
            load_branch(wrong)


# Evaluation


def by_hand(run: Path, world: World, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of a split's queries and its gallery, and the columns of the right ones."""
    branch, *_ = load_branch(run / f"{name}.safetensors")
    queries, references = (ShardSet(world.root / f"{kind}.h5") for kind in (name, "satellite"))
    own = [name for name, s in zip(world.ids, world.splits, strict=True) if s == split]
    vectors = []
    for shards in (queries, references):
        images = shards.read([shards.row(name) for name in own])
        with torch.no_grad():
            vectors.append(branch.encoder(torch.from_numpy(images).permute(0, 3, 1, 2) / 255))
    scores = (vectors[0] @ vectors[1].T).numpy()
    return scores, np.array(own)


def test_every_method_equals_a_search_by_hand(world, run):
    found = evaluate(run, Dataset(DATA, world.root), "test")
    scores = {name: by_hand(run, world, name, "test")[0] for name in ("panorama", "bev")}
    own = by_hand(run, world, "bev", "test")[1]
    assert found.gallery == 16  # the references that train and val name are not searched
    assert found.queries == found.references == own.tolist()
    assert [m.name for m in found.methods] == ["panorama", "bev", "both", "both, weight chosen"]
    for method in found.methods:
        mixed = method.weight * scores["panorama"] + (1 - method.weight) * scores["bev"]
        right = np.diag(mixed)
        assert method.ranks == ((mixed >= right[:, None]).sum(1) - 1).tolist()
        assert [best[0] for best in method.top] == own[mixed.argmax(1)].tolist()
        assert method.figures["R@1"].value == 100 * np.mean(np.array(method.ranks) == 0)
        hits = np.array(method.ranks) == 0
        assert (np.array(method.metres)[hits] == 0).all()
        assert (np.array(method.metres)[~hits] > 0).all()
        assert [len(best) for best in method.top] == [5] * 16
    assert as_table(found)[0]["method"] == "panorama"


def test_the_weight_is_chosen_on_validation_data_alone(world, run, tmp_path):
    found = evaluate(run, Dataset(DATA, world.root), "test")
    scores = {name: by_hand(run, world, name, "val")[0] for name in ("panorama", "bev")}
    reciprocal = {}
    for weight in np.arange(21) / 20:
        mixed = weight * scores["panorama"] + (1 - weight) * scores["bev"]
        ranks = (mixed >= np.diag(mixed)[:, None]).sum(1)
        reciprocal[weight] = (1 / ranks).mean()
    best = max(reciprocal.values())
    nearest = min((w for w, v in reciprocal.items() if v > best - 1e-9), key=lambda w: abs(w - 0.5))
    assert abs(found.methods[3].weight - 0.5) == pytest.approx(abs(nearest - 0.5))
    assert reciprocal[found.methods[3].weight] == pytest.approx(best)
    # On the validation split itself, or without one, nothing honest can be chosen.
    for data, split in (
        (DATA, "val"),
        (replace_data(validation_split="none"), "test"),
        (replace_data(pairs=False), "test"),
    ):
        assert len(evaluate(run, Dataset(data, world.root), split).methods) == 3


def replace_data(**values: object) -> DataSettings:
    return DataSettings.model_validate(values)


@pytest.mark.parametrize("name", ["panorama", "bev"])
def test_one_branch_is_enough(world, tmp_path, name):
    found = evaluate(untrained(tmp_path / "one", name), Dataset(DATA, world.root), "test")
    assert [(m.name, m.weight) for m in found.methods] == [(name, float(name == "panorama"))]
    assert list(found.checkpoints) == [name]


def test_a_run_without_checkpoints(world, tmp_path):
    with pytest.raises(CheckpointError, match="train first"):
        evaluate(tmp_path, Dataset(DATA, world.root), "test")


def test_embeddings_are_kept_for_the_same_weights_and_data_only(world, run):
    def embedded(root: Path = world.root, data: DataSettings = DATA) -> set[str]:
        heard: set[str] = set()
        evaluate(run, Dataset(data, root), "test", on_progress=lambda title, *_: heard.add(title))
        return {title for title in heard if title.startswith("test")}

    everything = {
        f"test {name} {what}" for name in ("panorama", "bev") for what in ("query", "reference")
    }
    assert embedded() == everything
    assert embedded() == set()
    untrained(run, "bev", seed=1)
    assert embedded() == {"test bev query", "test bev reference"}
    unknown = replace_data(heading="unknown")
    assert embedded(data=unknown) == {"test panorama query", "test bev query"}
    assert embedded() == embedded(data=unknown) == set()


def test_other_data_with_equal_ids_is_embedded_anew(world, run, tmp_path):
    other = make_world(tmp_path / "other")
    images = 255 - np.asarray(ShardSet(other.root / "bev.h5").read(range(len(other.ids))))
    write_shards(other.root / "bev.h5", "bev", other.ids, images, other.positions)
    heard: set[str] = set()
    evaluate(run, Dataset(DATA, world.root), "test")
    with pytest.raises(DataError, match="is the result of another search"):
        evaluate(run, Dataset(DATA, other.root), "test")
    data = Dataset(DATA, other.root)
    evaluate(run, data, "test", name="other", on_progress=lambda title, *_: heard.add(title))
    assert heard == {"test bev query", "val bev query"}


def test_tiles_redrawn_in_place_are_embedded_anew(small_world, run, tmp_path):
    """A plan knows files by names and sizes, which stay the same in uncompressed TIFF."""
    folder, path = tmp_path / "tiles", small_world.root / "satellite.h5"
    folder.mkdir()
    plans = set()
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        for name in small_world.ids:
            tile = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(tile).save(folder / f"{name}.tif")
        convert(folder, path, ImageSettings("satellite", 32, 32), scheduler="sync", overwrite=True)
        plans.add(ShardSet(path).plan)
        heard: set[str] = set()
        data = Dataset(DATA, small_world.root)
        evaluate(run, data, "test", on_progress=lambda title, *_, to=heard: to.add(title))
    assert len(plans) == 1
    assert {"test panorama reference", "test bev reference"} <= heard
    assert not {"test panorama query", "test bev query"} & heard


def test_queries_that_one_view_lacks_are_left_out_of_both(small_world, run, caplog):
    world = small_world
    test = [k for k, split in enumerate(world.splits) if split == "test"]
    keep = [k for k in range(len(world.ids)) if k != test[2]]
    images = ShardSet(world.root / "bev.h5").read(keep)
    ids = [world.ids[k] for k in keep]
    write_shards(world.root / "bev.h5", "bev", ids, images, world.positions[keep])
    found = evaluate(run, Dataset(DATA, world.root), "test")
    assert found.queries == [world.ids[k] for k in test if k != test[2]]
    assert found.gallery == 6  # the reference stays
    assert all(len(method.ranks) == 5 for method in found.methods)
    assert "1 query of" in caplog.text


def test_views_in_another_order_are_joined_by_id(small_world, run):
    world = small_world
    before = evaluate(run, Dataset(DATA, world.root), "test")
    order = np.random.default_rng(0).permutation(len(world.ids))
    images = ShardSet(world.root / "bev.h5").read(order)
    ids = [world.ids[k] for k in order]
    write_shards(world.root / "bev.h5", "bev", ids, images, world.positions[order])
    for pairs in ("pairs.csv", False):
        after = evaluate(run, Dataset(replace_data(pairs=pairs), world.root), "test")
        if pairs:
            assert [m.ranks for m in after.methods] == [m.ranks for m in before.methods]
        else:
            scores, own = by_hand(run, replace(world, splits=["x"] * len(ids)), "bev", "x")
            ranks = dict(zip(own, (scores >= np.diag(scores)[:, None]).sum(1) - 1, strict=True))
            assert after.methods[1].ranks == [ranks[name] for name in after.queries]


def test_unknown_heading_turns_both_query_views_alike(world, run):
    data = replace_data(heading="unknown")
    first = evaluate(run, Dataset(data, world.root), "test", seed=1)
    again = evaluate(run, Dataset(data, world.root), "test", seed=1)
    other = evaluate(run, Dataset(data, world.root), "test", seed=2)
    known = evaluate(run, Dataset(DATA, world.root), "test", seed=1)
    assert first == again
    assert first.heading == "unknown"
    assert (first.protocol, known.protocol) == ("heading unknown", "heading known")
    assert [m.scores for m in first.methods] != [m.scores for m in other.methods]
    assert [m.scores for m in first.methods] != [m.scores for m in known.methods]


@pytest.mark.parametrize("fov", [90, 180])
def test_a_limited_field_of_view_equals_a_search_by_hand(world, tmp_path, fov):
    run = untrained(tmp_path / "run", "panorama", "bev", model="test_vit")
    whole = evaluate(run, Dataset(DATA, world.root), "test")
    data = replace_data(fov=fov)
    heard: set[str] = set()
    found = evaluate(
        run, Dataset(data, world.root), "test", on_progress=lambda title, *_: heard.add(title)
    )
    assert found.protocol == f"heading known, field of view {fov}°"
    assert {title for title in heard if "reference" in title} == set()  # those are whole
    tested = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"]
    references = ShardSet(world.root / "satellite.h5")
    step = 64 * fov // 360 // 2
    for name in ("panorama", "bev"):
        shards = ShardSet(world.root / f"{name}.h5")
        images = np.asarray(shards.read([shards.row(i) for i in tested]), np.float32) / 255
        if name == "panorama":
            images = images[:, :, 32 - step : 32 + step]
        else:
            y, x = 15.5 - np.mgrid[:32, :32][0], np.mgrid[:32, :32][1] - 15.5
            ahead = np.abs(x) <= y if fov == 90 else y >= 0
            images = images * ahead[..., None]
        tiles = references.read([references.row(i) for i in tested])
        branch, *_ = load_branch(run / f"{name}.safetensors")
        with torch.no_grad():
            q = branch.encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
            r = branch.encoder(torch.from_numpy(tiles).permute(0, 3, 1, 2) / 255)
        scores = (q @ r.T).numpy()
        method = next(m for m in found.methods if m.name == name)
        np.testing.assert_allclose(np.array(method.scores)[:, 0], scores.max(1), atol=1e-4)
        assert method.ranks == ((scores >= np.diag(scores)[:, None]).sum(1) - 1).tolist()
    assert [m.scores for m in found.methods] != [m.scores for m in whole.methods]


def test_semi_positives_count_for_the_hit_rate_alone(small_world, run):
    world = small_world
    plain = evaluate(run, Dataset(DATA, world.root), "test").methods[1]
    path = world.write_pairs()
    lines = path.read_text().splitlines()
    with path.open("w") as file:
        file.write("query,reference,role,split\n")
        for line in lines[1:]:
            query, reference, split = line.split(",")
            file.write(f"{query},{reference},positive,{split}\n")
        tested = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"]
        for query, best in zip(tested, plain.top, strict=True):
            file.write(f"{query},{best[0]},semi,test\n")
    semi = evaluate(run, Dataset(DATA, world.root), "test").methods[1]
    assert semi.ranks == plain.ranks
    assert plain.figures["hit rate"] == plain.figures["R@1"]
    expected = 100 * np.mean(np.array(plain.ranks) <= 1)
    assert semi.figures["hit rate"].value == pytest.approx(expected)


def test_several_right_references_and_distractors_equal_a_search_by_hand(small_world, run):
    """As University-1652 from satellite to drone: places have several views, some nobody asks."""
    world = small_world
    tested = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"]
    spare = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "train"]
    # The first query has one view, the last six; two tiles of the remaining are distractors.
    right = {q: [q, *spare[k * (k - 1) // 2 :][:k]] for k, q in enumerate(tested)}
    wanted = {name for own in right.values() for name in own}
    unused = [name for name in world.ids if name not in wanted]
    distractors, hidden = unused[:2], unused[2:]
    rows = [f"{q},{r},test" for q, own in right.items() for r in own]
    rows += [f"{name},{name},val" for name in hidden]
    (world.root / "pairs.csv").write_text("query,reference,split\n" + "\n".join(rows))
    branch, *_ = load_branch(run / "bev.safetensors")
    vectors = {}
    for kind in ("bev", "satellite"):
        shards = ShardSet(world.root / f"{kind}.h5")
        images = torch.from_numpy(shards.read(range(len(shards)))).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            vectors[kind] = dict(zip(shards.ids, branch.encoder(images), strict=True))
    for matched, gallery in ((False, [*wanted, *distractors]), (True, list(wanted))):
        found = evaluate(run, Dataset(DATA, world.root), "test", matched=matched)
        assert found.gallery == len(gallery)
        assert found.protocol == "heading known" + ", no distractors" * matched
        method = next(m for m in found.methods if m.name == "bev")
        precisions = []
        for k, query in enumerate(found.queries):
            assert found.right(k) == set(right[query])
            scores = {r: float(vectors["bev"][query] @ vectors["satellite"][r]) for r in gallery}
            order = sorted(gallery, key=lambda r: -scores[r])
            places = [p for p, r in enumerate(order) if r in right[query]]
            assert method.ranks[k] == places[0]
            assert method.top[k] == order[:5]
            steps = [((i / p if p else 1) + (i + 1) / (p + 1)) / 2 for i, p in enumerate(places)]
            precisions.append(np.mean(steps))
        assert method.figures["AP"].value == pytest.approx(100 * np.mean(precisions))
        found.save(run / "evaluation-x.json")
        assert Evaluation.load(run / "evaluation-x.json") == found


def test_the_gallery_of_matched_references_keeps_their_semi_positives(small_world, run):
    world = small_world
    tested = [i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"]
    semi = {q: [tested[k - 1], world.ids[0]] for k, q in enumerate(tested)}
    rows = [f"{q},{q},positive" for q in tested]
    rows += [f"{q},{r},semi" for q, own in semi.items() for r in own]
    (world.root / "pairs.csv").write_text("query,reference,role\n" + "\n".join(rows))
    found = evaluate(
        run, Dataset(replace_data(validation_split="none"), world.root), "test", matched=True
    )
    assert found.gallery == len(tested)
    scores, own = by_hand(run, world, "bev", "test")
    method = next(m for m in found.methods if m.name == "bev")
    hits = []
    for k, query in enumerate(own):
        row = {name: scores[k, j] for j, name in enumerate(own) if name not in semi[query]}
        hits.append(max(row, key=row.__getitem__) == query)
    assert method.figures["hit rate"].value == pytest.approx(100 * np.mean(hits))


def test_unknown_positions_leave_metres_out(small_world, run):
    world = small_world
    for kind in ("bev", "panorama"):
        images = ShardSet(world.root / f"{kind}.h5").read(range(len(world.ids)))
        write_shards(world.root / f"{kind}.h5", kind, world.ids, images)
    found = evaluate(run, Dataset(DATA, world.root), "test")
    assert found.positions == [None] * 6
    for method in found.methods:
        assert method.metres == [None] * 6
        assert "median metres" not in method.figures


def test_queries_that_were_trained_on_are_said(small_world, run, tmp_path, caplog):
    """Of 28 places 16 are for training; without a table all are, and any split is all of them."""
    root = small_world.root

    def warnings(split: str, data: DataSettings, where: Path | None = None) -> list[str]:
        caplog.clear()
        settings = tiny_settings("panorama", "bev")
        Run(run).write_settings(
            settings.model_copy(update={"data": data.model_copy(update={"root": root})})
        )
        evaluate(run, Dataset(data, where or root), split, name=f"{split}-{data.pairs}")
        return [message for message in caplog.messages if "trained on" in message]

    everything = DATA.model_copy(update={"pairs": None})
    assert warnings("test", DATA) == []
    assert warnings("train", DATA) == ["16 queries were trained on: their recall says little"]
    assert warnings("test", everything) == ["28 queries were trained on: their recall says little"]
    copy = shutil.copytree(root, tmp_path / "copy")
    assert warnings("val", everything, copy) == []  # other data, as far as one can tell


def test_models_that_diverged_are_an_error(world, run):
    branch, encoder, kind = load_branch(run / "bev.safetensors")
    with torch.no_grad():
        next(branch.encoder.parameters()).fill_(float("nan"))
    save_branch(run / "bev.safetensors", branch, encoder, kind)
    with pytest.raises(DataError, match="not finite"):
        evaluate(run, Dataset(DATA, world.root), "test")


def test_evaluations_survive_their_file(world, run, tmp_path):
    found = evaluate(run, Dataset(DATA, world.root), "test")
    found.save(tmp_path / "test.json")
    assert Evaluation.load(tmp_path / "test.json") == found
    json.loads((tmp_path / "test.json").read_text(), parse_constant=pytest.fail)  # no NaN


def test_the_gallery_and_the_joined_pairs_belong_together(world):
    queries, references = (ShardSet(world.root / f"{k}.h5") for k in ("bev", "satellite"))
    pairs = join(queries, references, world.root / "pairs.csv", "test")
    names = {references.ids[row] for row in pairs.gallery}
    assert names == {i for i, s in zip(world.ids, world.splits, strict=True) if s == "test"}
