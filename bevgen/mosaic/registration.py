"""Where did the cameras stand? Overlapping ground pictures tell it better than GPS and compass.

From coarse to fine: neighbours are searched for by shift and turn (`pairs`); a graph of what was
found and of GPS puts all frames in place (`settle`), which shows where the way meets itself, and
those pairs are searched for too; then all placements are refined together, pitch and roll included,
so that every pair's pictures agree. GPS and compass hold the whole where they say, as firmly as
they are sure. Lengths inside are in camera heights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import spsolve
from scipy.spatial import KDTree

from bevgen.errors import InputError
from bevgen.geometry import Pose
from bevgen.mosaic.cores import on_all_cores
from bevgen.mosaic.pairs import MIN_OVERLAP, SEARCH, Edge, Watch, search_all
from bevgen.mosaic.pictures import Array, Details, Level, LevelViews, Window, turned

AGAIN = 4.5  # heights within which frames that do not follow each other are searched for

REFINE = (
    Level(0.05, 0.16, 0.64, 2.6, 2e-4),
    Level(0.05, 0.08, 0.32, 3.4, 1e-4),
    Level(0.025, 0.042, 0.26, 4.2, 2e-5),
)

# Along and across, of a picture's slope per pixel.
_SLOPE, _SAME = np.array([1, -8, 0, 8, -1]) / 12, np.ones(1)
# The step below which a refinement has settled.
_SETTLED = np.array([0.0005, 0.0005, 0.01, 0.01, 0.01])
_NOISE = 1e-4  # part of the cost by which drawing to 1/32 of a pixel changes it
_ROBUST = 0.5  # differences of detail (about unit variance) beyond this count less and less
# What one squared standard deviation of GPS or compass costs, in squared differences of detail:
# their variance, times the pixels over which they go together.
_PRIOR = 5.0
_FOUND = np.array([0.05, 0.05, 1.0])  # how far a search is off: heights and degrees


@dataclass(frozen=True, slots=True)
class Prior:
    """Standard deviations of GPS in metres, east and north each, and of the compass in degrees."""

    position: float = 3.0
    heading: float = 5.0


class Registered(NamedTuple):
    """Placements (N, 5), in metres and degrees, and the pairs of frames (i, j) that hold them."""

    placements: Array
    pairs: list[tuple[int, int]]


def register(
    views: LevelViews,
    guess: Array,
    height: float,
    prior: Prior | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Registered:
    """Place cameras so that their pictures of the ground agree.

    Parameters
    ----------
    views
        At least two frames in the order of the drive; neighbours share ground.
    guess : (N, 5)
        East and north in metres, heading, pitch and roll in degrees, as GPS and compass say.
    height
        Metres of all cameras above the ground.
    prior
        How good the guess is.
    watch
        Called with what is done, and how much of it of how much.

    Returns
    -------
    Registered
        Pictures only tell how frames stand to each other: where the whole stands is GPS's. Pitch
        and roll are against the ground, not against gravity.

    Raises
    ------
    InputError
        If no two frames share ground.
    """
    prior = prior or Prior()
    start = guess / [height, height, 1, 1, 1]
    sigma = np.array([prior.position / height, prior.position / height, prior.heading])
    details = Details.of(views, SEARCH)
    n, track = len(start), _smooth(start, sigma[0])
    wanted = [(i, i + step) for step in (1, 2) for i in range(n - step)]
    edges = search_all(details, wanted, track, min(sigma[0], 1.0 + sigma[0] / 3), watch)
    if not edges:
        apart = np.hypot(*np.diff(guess[:, :2], axis=0).T)
        raise InputError(
            f"frames 1 and 2 share no ground, nor do any others: they are"
            f" {np.median(apart):.1f} m apart, and cameras {height:g} m up may be at most"
            f" {SEARCH.far * 1.7 * height:.0f} m apart"
        )
    placements = settle(edges, start, sigma)
    tree = KDTree(placements[:, :2])
    again = sorted((i, j) for i, j in tree.query_pairs(AGAIN) if j - i > 2)
    again = _nearest(again, placements)
    edges += search_all(details, again, placements, 0.6, watch)
    placements = settle(edges, start, sigma)
    pairs = _agreeing(edges, placements)
    del details  # one set of thousands of pictures at a time
    for number, level in enumerate(REFINE):
        watch("refining", number, len(REFINE))
        problem = _Problem(Details.of(views, level), pairs, start, sigma)
        placements = _refine(problem, placements)
        del problem
    placements = _onto(placements, start, sigma)
    return Registered(placements * [height, height, 1, 1, 1], pairs)


def correlations(
    views: LevelViews, placements: Array, height: float, pairs: list[tuple[int, int]]
) -> Array:
    """Correlate frames over the ground that both show.

    Parameters
    ----------
    views
        N frames.
    placements : (N, 5)
        Where they stand; metres and degrees.
    height
        Metres of all cameras above the ground.
    pairs
        Which frames.

    Returns
    -------
    (pairs,) float64
        Pearson correlation, -1 to 1, of the detail that the last step of `register` compares: of
        0.04 to 0.26 camera heights, between 0.75 and 4.2 heights from both cameras. NaN where two
        frames share too little.
    """
    placements = placements / [height, height, 1, 1, 1]
    details = Details.of(views, REFINE[-1])

    def correlation(pair: tuple[int, int]) -> float:
        window = _window(placements, *pair, details.level)
        where = _common(details, placements, *pair, window)
        if where.sum() * window.resolution**2 <= MIN_OVERLAP:
            return np.nan
        one, two = (details.draw(details.picture(f), placements[f], window) for f in pair)
        return float(np.corrcoef(one[where], two[where])[0, 1])

    return np.array(list(on_all_cores(correlation, pairs)))


# --- what to search for ---


def _smooth(start: Array, sigma: float) -> Array:
    """Draw a straight line through each frame and three to both sides, if GPS scatters widely.

    A camera that drives moves steadily: this foretells steps between neighbours better than GPS.
    """
    track = start.copy()
    if sigma < 0.5:
        return track
    for i in range(len(start)):
        near = np.arange(max(i - 3, 0), min(i + 4, len(start)))
        fit = np.polynomial.polynomial.polyfit(near - i, start[near, :2], min(1, len(near) - 1))
        track[i, :2] = fit[0]
    return track


def _nearest(
    pairs: list[tuple[int, int]], placements: Array, count: int = 2
) -> list[tuple[int, int]]:
    """Keep, of the pairs of each frame, those with the nearest others."""
    apart = {(i, j): float(np.hypot(*(placements[i] - placements[j])[:2])) for i, j in pairs}
    seen = np.zeros(len(placements), int)
    kept = []
    for i, j in sorted(pairs, key=apart.__getitem__):
        if seen[i] < count or seen[j] < count:
            seen[i] += 1
            seen[j] += 1
            kept.append((i, j))
    return sorted(kept)


# --- the graph ---


def settle(edges: list[Edge], start: Array, sigma: Array, rounds: int = 30) -> Array:
    """Put frames where pairs and GPS say, with little heed of pairs that contradict the others.

    Gauss-Newton with Cauchy weights. ``sigma`` (3,): heights, heights, degrees.
    """
    n, placements = len(start), start.copy()
    i, j = (np.array([getattr(edge, name) for edge in edges], int) for name in ("i", "j"))
    said = np.array([(edge.right, edge.ahead, edge.turn) for edge in edges])
    # From the first frame on along the best pairs: far better than GPS to begin with.
    for edge in sorted((e for e in edges if e.j == e.i + 1), key=lambda e: e.i):
        step = turned(np.array([edge.right, edge.ahead]), placements[edge.i, 2])
        placements[edge.j, :2] = placements[edge.i, :2] + step
        placements[edge.j, 2] = placements[edge.i, 2] + edge.turn
    placements = _onto(placements, start, sigma)
    for number in range(rounds):
        c, s = (f(np.deg2rad(placements[i, 2])) for f in (np.cos, np.sin))
        apart = placements[j, :2] - placements[i, :2]
        seen = turned(apart, -placements[i, 2])
        off = np.column_stack([seen, placements[j, 2] - placements[i, 2]]) - said
        off = off / _FOUND
        # Loose at first, so that what a far-off start contradicts is not thrown away.
        scale = 3.0 * max(1.0, 20.0 * 0.6**number)
        weight = 1 / np.sqrt(1 + (off**2).sum(axis=1) / scale**2)
        rows, columns, values = [], [], []
        per_degree = np.pi / 180
        across = np.column_stack([-seen[:, 1], seen[:, 0]]) * per_degree
        at = 3 * np.arange(len(i))
        for k, (de, dn) in enumerate(((c, -s), (s, c))):
            for frame, sign in ((j, 1), (i, -1)):
                rows += [at + k, at + k]
                columns += [3 * frame, 3 * frame + 1]
                values += [sign * de * weight / _FOUND[k], sign * dn * weight / _FOUND[k]]
            rows.append(at + k)
            columns.append(3 * i + 2)
            values.append(across[:, k] * weight / _FOUND[k])
        for frame, sign in ((j, 1), (i, -1)):
            rows.append(at + 2)
            columns.append(3 * frame + 2)
            values.append(sign * weight / _FOUND[2])
        jacobian = scipy.sparse.csr_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            (3 * len(i), 3 * n),
        )
        gps = (placements[:, :3] - start[:, :3]) / sigma
        held = np.tile(1 / sigma, n)
        normal = jacobian.T @ jacobian + scipy.sparse.diags(held**2)
        gradient = jacobian.T @ (off * weight[:, None]).ravel() + held * gps.ravel()
        step = -spsolve(normal.tocsc(), gradient).reshape(n, 3)
        placements[:, :3] += step
        if number > 8 and np.abs(step / [1, 1, 20]).max() < 1e-4:
            break
    return placements


def _onto(placements: Array, start: Array, sigma: Array) -> Array:
    """Move and turn the whole to where GPS and compass together say: least squares."""
    moved = placements.copy()
    there = start[:, :2].mean(axis=0)
    for _ in range(6):
        moved[:, :2] += there - moved[:, :2].mean(axis=0)
        from_middle = moved[:, :2] - there
        by_degree = np.column_stack([from_middle[:, 1], -from_middle[:, 0]]) * np.pi / 180
        toward = ((start - moved)[:, :2] * by_degree).sum() / sigma[0] ** 2
        toward += (start - moved)[:, 2].sum() / sigma[2] ** 2
        firm = (by_degree**2).sum() / sigma[0] ** 2 + len(start) / sigma[2] ** 2
        turn = float(np.clip(toward / firm, -30, 30))
        moved[:, :2] = there + turned(from_middle, turn)
        moved[:, 2] += turn
    return moved


def _agreeing(edges: list[Edge], placements: Array) -> list[tuple[int, int]]:
    """Pairs that the graph did not contradict."""
    kept = []
    for edge in edges:
        apart = turned((placements[edge.j] - placements[edge.i])[:2], -placements[edge.i, 2])
        turn = placements[edge.j, 2] - placements[edge.i, 2]
        off = np.array([*apart, turn]) - [edge.right, edge.ahead, edge.turn]
        if (np.abs(off) < [0.25, 0.25, 5]).all():
            kept.append((edge.i, edge.j))
    return sorted(set(kept))


# --- refinement ---


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What is refined: detail, pairs, and what GPS and compass say, how surely."""

    details: Details
    pairs: list[tuple[int, int]]
    start: Array
    sigma: Array


def _window(placements: Array, i: int, j: int, level: Level) -> Window:
    """Lay a square around the ground that two frames may have in common."""
    east, north = ((placements[i] + placements[j]) / 2)[:2].tolist()
    return Window(east, north, round(2 * level.far / level.resolution), level.resolution)


def _common(
    details: Details, placements: Array, i: int, j: int, window: Window
) -> NDArray[np.bool_]:
    """Where (size, size) both frames show ground worth comparing."""
    one, two = (details.draw_ground(f, placements[f], window) for f in (i, j))
    return one & two


def _refine(problem: _Problem, placements: Array, rounds: int = 12) -> Array:
    """Let all placements settle together (Levenberg-Marquardt with robust differences)."""
    # Damping holds back what all frames do together, as a long way's bend: none if it goes without.
    damping = 1e-9
    matrix, vector, cost = _equations(problem, placements)
    following = matrix, vector, cost
    for _ in range(rounds):
        damped = matrix + scipy.sparse.diags(damping * matrix.diagonal())
        step = spsolve(damped.tocsc(), vector).reshape(-1, 5)
        trial = placements + step
        try:
            following = _equations(problem, trial)
        except InputError:  # a tilt beyond all bounds
            following = matrix, vector, np.inf
        if following[2] > cost * (1 + _NOISE):
            damping = max(10 * damping, 1e-4)
            if damping > 1e2:
                break
            continue
        placements, damping = trial, damping / 10
        matrix, vector, cost = following
        if (np.abs(step) < _SETTLED).all():
            break
    return placements


def _equations(
    problem: _Problem, placements: Array
) -> tuple[scipy.sparse.csr_matrix, Array, float]:
    """Matrix (5N, 5N), right side (5N,) and cost of one Gauss-Newton step.

    The cost is the mean of robust squared differences (pseudo-Huber) of each pair, times its common
    ground in pixels of the coarsest level, and the squares of what GPS, compass and a level camera
    contradict.
    """
    n, level = len(placements), problem.details.level
    rows, columns, values = [], [], []
    vector, cost, pixels = np.zeros(5 * n), 0.0, np.zeros(n)
    equations = on_all_cores(
        lambda pair: _pair_equations(problem.details, placements, *pair), problem.pairs
    )
    for (i, j), (block, right, part, count) in zip(problem.pairs, equations, strict=True):
        at = np.r_[5 * i : 5 * i + 5, 5 * j : 5 * j + 5]
        rows.append(np.repeat(at, 10))
        columns.append(np.tile(at, 10))
        values.append(block.ravel())
        vector[at] += right
        cost += part
        pixels[[i, j]] += count
    held = np.zeros((n, 5))
    held[:, :3] = _PRIOR / problem.sigma**2
    held[:, 3:] = np.maximum(level.tilt * pixels[:, None], 1e-6)
    off = placements - problem.start
    vector -= (held * off).ravel()
    cost += float((held * off**2).sum())
    values.append(held.ravel())
    rows.append(np.arange(5 * n))
    columns.append(np.arange(5 * n))
    value, row, column = (np.concatenate(part) for part in (values, rows, columns))
    return scipy.sparse.csr_matrix((value, (row, column)), (5 * n, 5 * n)), vector, cost


def _pair_equations(
    details: Details, placements: Array, i: int, j: int
) -> tuple[Array, Array, float, int]:
    """One pair's part of matrix (10, 10), right side (10,) and cost, and its common pixels."""
    window = _window(placements, i, j, details.level)
    where = _common(details, placements, i, j, window)
    count = int(where.sum())
    if count * window.resolution**2 < MIN_OVERLAP:
        return np.zeros((10, 10)), np.zeros(10), 0.0, 0
    one, two = (details.draw(details.picture(f), placements[f], window) for f in (i, j))
    r = (one - two)[where]
    # The slopes of the mean of both serve for both: what moves the two together changes nothing,
    # so that a long way may bend.
    mean = (one + two) / np.float32(2 * window.resolution)
    across = cv2.sepFilter2D(mean, -1, _SLOPE, _SAME)[where]
    down = cv2.sepFilter2D(mean, -1, _SAME, _SLOPE)[where]
    row, column = np.nonzero(where)
    edge = (0.5 - window.size / 2) * window.resolution
    east = window.east + edge + column * window.resolution
    north = window.north - edge - row * window.resolution
    by = [_by_placement(across, down, east, north, placements[frame]) for frame in (i, j)]
    jacobian = np.concatenate([by[0], -by[1]])
    root = np.sqrt(1 + (r / _ROBUST) ** 2)
    weighted = jacobian / root
    cost = float((root - 1).sum(dtype=np.float64)) * 2 * _ROBUST**2
    return (weighted @ jacobian.T).astype(float), -(weighted @ r).astype(float), cost, count


def _by_placement(
    across: NDArray[Any],
    down: NDArray[Any],
    east: NDArray[Any],
    north: NDArray[Any],
    placement: Array,
) -> NDArray[Any]:
    """Give derivatives (5, n) of a drawn picture by its camera's placement.

    A camera that moves takes its picture along; one that turns by a small angle moves each point
    of the ground to where the turned ray meets it.

    Parameters
    ----------
    across, down : (n,)
        Slopes of the picture to the east and south, per height.
    east, north : (n,)
        Where.
    placement : (5,)
        Of the camera.
    """
    x, y = (east - placement[0]).astype(np.float32), (north - placement[1]).astype(np.float32)
    # The axes that heading, pitch and roll turn about, as in `Pose.world_from_camera`.
    heading, pitch = placement[2:4].tolist()
    right = Pose(1.0, heading).world_from_camera()[:, 0]
    forward = Pose(1.0, heading, pitch).world_from_camera()[:, 1]
    slopes = [-across, down]
    for a, b, c in ((0.0, 0.0, -1.0), right.tolist(), forward.tolist()):
        # Axis x (x, y, -1), then along the ray back to the ground.
        dx, dy, dz = -b - c * y, c * x + a, a * y - b * x
        slope = down * (dy + y * dz) - across * (dx + x * dz)
        slopes.append(slope * np.float32(np.pi / 180))
    return np.stack(slopes)
