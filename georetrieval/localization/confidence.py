"""How likely an answer is right, which candidates to keep in mind, and when to say "not found".

A conditional logit over the candidates: each one's chance grows with a weighted sum of what speaks
for it, and "none of these" competes with a sum of its own. The weights are fitted on validation
places; the prediction set is split conformal, its threshold taken from folds that the
weights had not seen; the threshold of "not found" comes from the same photos with their own tiles
taken away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bevgen.terminal import counted
from georetrieval.errors import DataError, IndexFileError
from georetrieval.localization.location import Candidate, Verdict

if TYPE_CHECKING:
    from georetrieval.retrieval.index import Index

Floats = NDArray[np.float64]

FEATURES = ("similarity", "panorama", "agreement", "likeness", "turned")
"""Of a candidate: joined similarity, the panorama's alone, agreement of edges in standard
deviations of chance, likeness of the ground, and how far (1 - cosine) alignment turned the heading
that the encoders chose."""
RULE = 3
"""How candidates and features come about; goes up when the same photo would get others."""
LEAST = 40
"""Photos without which nothing is fitted."""
FOLDS = 5
RIDGE = 1e-2
"""Keeps weights finite where few photos would be told apart perfectly."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A photo whose place is known, as it was searched for.

    Attributes
    ----------
    features : (K, F) float64
        Of its candidates; see `FEATURES`.
    right
        Which candidate is its place; None where none is.
    """

    features: Floats
    right: int | None


@dataclass(frozen=True, slots=True)
class LogitConfidence:
    """Judges answers; a `Confidence`.

    Attributes
    ----------
    centre, scale
        Features are shifted and divided by these first.
    weights
        Of the features.
    none
        Utility of "none of these".
    least
        Utility of the best candidate below which a place was not found.
    kept
        A candidate is in the prediction set if its probability is at least this.
    coverage
        Share of photos whose place the set holds.
    photos
        How many it was fitted on.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    none: float
    least: float
    kept: float
    coverage: float
    photos: int

    def judge(self, candidates: Sequence[Candidate]) -> Verdict:
        """Judge the candidates of one photo."""
        values = self.utilities(features(candidates))
        chances = _chances(values, self.none)
        order = np.argsort(-chances, kind="stable")
        return Verdict(
            order=tuple(int(k) for k in order),
            probabilities=tuple(float(p) for p in chances[order]),
            found=bool(values.max() >= self.least),
            prediction_set=int((chances >= self.kept).sum()),
        )

    def utilities(self, values: Floats) -> Floats:
        """Weigh features (K, F)."""
        return (values - np.array(self.centre)) / np.array(self.scale) @ np.array(self.weights)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"rule": RULE, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LogitConfidence:
        """Read what `to_json` gave.

        Raises
        ------
        IndexFileError
            If something is missing or is no number.
        """
        try:
            rows = [tuple(float(v) for v in values[k]) for k in ("centre", "scale", "weights")]
            none, least, kept, coverage = (
                float(values[k]) for k in ("none", "least", "kept", "coverage")
            )
            rule, photos = values.get("rule", 1), int(values["photos"])
            model = cls(rows[0], rows[1], rows[2], none, least, kept, coverage, photos)
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFileError(
                f"the index's confidence model is damaged ({error!r}): fit it again with"
                " `georetrieval confidence`"
            ) from error
        if rule != RULE or {len(row) for row in rows} != {len(FEATURES)}:
            raise IndexFileError(
                "the index's confidence model is of another version: fit it again with"
                " `georetrieval confidence`"
            )
        return model


def features(candidates: Sequence[Candidate]) -> Floats:
    """Return what speaks for each candidate, (K, F) float64; 0 where something was not measured."""
    rows = [
        (
            candidate.score,
            candidate.branch_scores.get("panorama", 0.0),
            candidate.agreement or 0.0,
            candidate.likeness or 0.0,
            1 - math.cos(math.radians((candidate.heading or 0.0) - (candidate.searched or 0.0))),
        )
        for candidate in candidates
    ]
    return np.array(rows, np.float64).reshape(-1, len(FEATURES))


def stored_confidence(index: Index) -> dict[str, LogitConfidence]:
    """Return the models for known and unknown headings that an index holds; empty without.

    Raises
    ------
    IndexFileError
        If they are damaged.
    """
    return {
        name: LogitConfidence.from_json(values) for name, values in (index.confidence or {}).items()
    }


def fit_confidence(
    present: Sequence[Trial],
    absent: Sequence[Trial],
    *,
    coverage: float = 0.9,
    keep: float = 0.8,
    accept: float = 0.03,
) -> LogitConfidence:
    """Fit on validation photos.

    Parameters
    ----------
    present
        Photos whose places the index holds.
    absent
        The same or other photos, searched for where their places are not.
    coverage
        Wanted of the prediction set.
    keep
        At least this share of right answers must be accepted.
    accept
        Share of absent places that may be taken for found, if ``keep`` allows.

    Raises
    ------
    DataError
        If there are too few photos.
    """
    known = [trial for trial in present if len(trial.features)]
    if len(known) < LEAST:
        raise DataError(
            f"too few to fit a confidence model on: {counted(len(known), 'photo')}; it takes"
            f" {LEAST} or more, of places that the index holds and training did not"
        )
    stacked = np.concatenate([trial.features for trial in known])
    centre, scale = stacked.mean(axis=0), np.maximum(stacked.std(axis=0), 1e-6)

    def standard(trials: Sequence[Trial]) -> list[Trial]:
        return [Trial((t.features - centre) / scale, t.right) for t in trials if len(t.features)]

    known, unknown = standard(known), standard(absent)
    weights, none = _maximise(known)
    kept = _quantile(np.concatenate([_held_out(known, f) for f in range(FOLDS)]), 1 - coverage)
    utility = [t.features @ weights for t in known]
    right = np.array(
        [u.max() for u, t in zip(utility, known, strict=True) if t.right == u.argmax()]
    )
    wrong = np.array([(t.features @ weights).max() for t in unknown])
    return LogitConfidence(
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()),
        none=none,
        least=_threshold(right, wrong, keep, accept),
        kept=kept,
        coverage=coverage,
        photos=len(known),
    )


def _maximise(trials: Sequence[Trial]) -> tuple[Floats, float]:
    """Fit weights, and the utility of none, by maximum likelihood with a small penalty."""
    most, size = max(len(trial.features) for trial in trials), len(FEATURES)
    padded = torch.zeros((len(trials), most, size), dtype=torch.float64)
    there = torch.zeros((len(trials), most + 1), dtype=torch.bool)
    target = torch.full((len(trials),), most)
    for k, trial in enumerate(trials):
        padded[k, : len(trial.features)] = torch.from_numpy(trial.features)
        there[k, : len(trial.features)] = True
        there[k, most] = True
        if trial.right is not None:
            target[k] = trial.right
    weights = torch.zeros(size + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        none = weights[-1].expand(len(trials), 1)
        logits = torch.cat([padded @ weights[:-1], none], 1).masked_fill(~there, -1e9)
        loss = torch.nn.functional.cross_entropy(logits, target)
        loss = loss + RIDGE * (weights[:-1] ** 2).sum() / len(trials)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = weights.detach().numpy()
    return found[:-1].copy(), float(found[-1])


def _held_out(trials: Sequence[Trial], fold: int) -> Floats:
    """Probability of the right candidate in one fold, by weights that did not see it."""
    weights, none = _maximise([t for k, t in enumerate(trials) if k % FOLDS != fold])
    values = []
    for trial in trials[fold::FOLDS]:
        chances = _chances(trial.features @ weights, none)
        values.append(0.0 if trial.right is None else chances[trial.right])
    return np.array(values)


def _chances(utilities: Floats, none: float) -> Floats:
    top = max(float(utilities.max(initial=none)), none)
    powers = np.exp(utilities - top)
    return powers / (powers.sum() + math.exp(none - top))


def _quantile(values: Floats, share: float) -> float:
    """Return the value below which a new one lies with probability ``share`` at most."""
    place = math.floor(share * (len(values) + 1)) - 1
    return float(np.sort(values)[place]) if place >= 0 else 0.0


def _threshold(right: Floats, wrong: Floats, keep: float, accept: float) -> float:
    """Refuse all but ``accept`` of the wrong, but never more than 1 - ``keep`` of the right."""
    if not len(right):
        return math.inf
    highest = float(np.quantile(right, 1 - keep))
    if not len(wrong):
        return highest
    return min(float(np.quantile(wrong, 1 - accept)), highest)
