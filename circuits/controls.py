"""Controls: scores that should do worse than the trained autoencoder if its training were what counts.

The one idea: replace one part of the pipeline at a time by something that knows less. In the paper's own
numbers fewer training examples do better, so an encoder that saw none is a fair rival. Whoever equals the
autoencoder shows what the result is really owed to: a random partition of space (untrained, random
projection), clustering (k-means), heads with varied outputs (code diversity, shuffled labels), or a plain
difference between the classes (mean difference, linear probe).

Every control returns one score a head, larger means "more likely in the circuit", and has no sign.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from circuits import sae
from circuits.codes import count_codes

Codes = Int[np.ndarray, "example head"]
Labels = Bool[np.ndarray, "example"]
HeadScores = Float[np.ndarray, "head"]
HeadScore = Callable[[Codes, Labels], HeadScores]
"""How codes become a score of heads: node_scores or pair_head_scores, the same as for the autoencoder."""

Vectors = Float[Tensor, "example head d_model"]


def _strongest(
    x: Vectors, directions: Float[Tensor, "d_model features"], bias: Float[Tensor, "features"]
) -> Codes:
    blocks = (x[start : start + 64] for start in range(0, len(x), 64))
    return np.asarray(torch.cat([(block @ directions + bias).argmax(-1) for block in blocks]).cpu())


def untrained_autoencoder(
    x: Vectors, positive: Labels, score: HeadScore, start: sae.SparseAutoencoder
) -> HeadScores:
    """The pipeline with the autoencoder as it was before its training."""
    return score(sae.encode(start, x), positive)


def random_projection(
    x: Vectors,
    positive: Labels,
    score: HeadScore,
    features: int,
    generator: torch.Generator,
) -> HeadScores:
    """The pipeline with the largest of `features` Gaussian projections as code: no bias, ReLU or training."""
    directions = torch.randn(x.shape[-1], features, generator=generator).to(x.device)
    return score(_strongest(x, directions, torch.zeros(features).to(x)), positive)


def k_means(
    x: Vectors,
    positive: Labels,
    score: HeadScore,
    rows: Int[Tensor, "row"],
    features: int,
    generator: np.random.Generator,
) -> HeadScores:
    """The pipeline with the nearest of `features` k-means centres as code, fitted on the same few examples.

    rows: the examples that the autoencoder was trained on. Fewer vectors than features give fewer centres.
    """
    few = np.unique(x[rows].flatten(0, 1).cpu().numpy(), axis=0)
    start = few[generator.permutation(len(few))[:features]]
    # scipy's k-means runs on one thread, so a seed means one result; it warns of a centre that lost all rows.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        centres = torch.from_numpy(kmeans2(few, start, iter=30, minit="matrix")[0]).to(x)
    return score(_strongest(x, centres.T, -centres.pow(2).sum(-1) / 2), positive)


def code_diversity(codes: Codes, positive: Labels) -> HeadScores:
    """|P|: how many codes a head shows on positives, whatever it shows on negatives."""
    return count_codes(codes, positive).positive.astype(float)


def shuffled_labels(
    codes: Codes,
    positive: Labels,
    score: HeadScore,
    generator: np.random.Generator,
    *,
    shuffles: int = 5,
) -> HeadScores:
    """The pipeline with the labels of the examples shuffled, averaged over `shuffles` of them.

    What is left is owed to varied codes alone. AUROC is near 0.5 only where varied heads are no more often in
    the reference than others.
    """
    drawn = [score(codes, generator.permutation(positive)) for _ in range(shuffles)]
    return np.asarray(np.mean(drawn, axis=0))


def mean_difference(x: Vectors, positive: Labels) -> HeadScores:
    """Length of the difference between the mean vectors of positives and negatives, in activation units."""
    chosen = torch.from_numpy(positive).to(x.device)
    distance = (x[chosen].mean(0) - x[~chosen].mean(0)).norm(dim=-1)
    return np.asarray(distance.double().cpu())


def probe_accuracy(x: Vectors, positive: Labels, *, folds: int = 3, seed: int = 0) -> HeadScores:
    """Held-out accuracy of a linear (ridge) classifier of positives on each head, in 0..1, mean over folds.

    Raises ValueError where a class has fewer than two examples.
    """
    smaller = int(min(positive.sum(), (~positive).sum()))
    split = StratifiedKFold(min(folds, smaller), shuffle=True, random_state=seed)
    probe = make_pipeline(StandardScaler(), RidgeClassifier())
    vectors = x.cpu().numpy()
    heads = range(vectors.shape[1])
    return np.array([cross_val_score(probe, vectors[:, head], positive, cv=split).mean() for head in heads])
