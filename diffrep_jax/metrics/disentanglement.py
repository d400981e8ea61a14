"""Whether single numbers of a code stand for single attributes: TAD, ATTRS and DCI, in float64.

TAD: Yeats et al. 2022 (2207.09467, NashAE), in the protocol of InfoDiffusion (Wang et al. 2023, 2306.08757). DCI:
Eastwood and Williams 2018, with gradient-boosted trees as in Locatello et al. 2019 (1811.12359).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from diffrep_jax.errors import check_finite

FOLDS = 5
LEAST_AUROC = 0.75  # of an attribute's best number, to be captured
MOST_SHARED = 0.2  # of an attribute's entropy that another one determines


def folds(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """InfoDiffusion's five folds of `count` images: (the rows of four fifths, those of the rest)."""
    from sklearn.model_selection import KFold

    yield from KFold(FOLDS, shuffle=True, random_state=0).split(np.arange(count))


def auroc(codes: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """The area under the ROC curve of each number as a score of each attribute: [n, d], 0 or 1 [n, k] -> [k, d].

    Of the number or its negative, whichever is better, so at least 0.5; 0.5 where all images are alike.
    """
    from scipy.stats import rankdata

    has = np.asarray(attributes, np.float64)
    check_finite(codes, "The code of image")
    ranks = rankdata(np.asarray(codes, np.float64), axis=0)  # ties share their mean rank
    positives = has.sum(0)[:, None]
    pairs = positives * (len(has) - positives)
    area = (has.T @ ranks - positives * (positives + 1) / 2) / np.where(pairs == 0, 1, pairs)
    return np.where(pairs == 0, 0.5, np.maximum(area, 1 - area))


def shared_entropy(attributes: np.ndarray) -> np.ndarray:
    """The part of each attribute's entropy that the most informative other one removes: 0 or 1 [n, k] -> [k].

    NaN for an attribute that all images have, or none.
    """
    has = np.asarray(attributes, np.float64)
    both = [has, 1 - has]
    information = np.zeros((has.shape[1],) * 2)
    for one in both:
        for other in both:
            joint = one.T @ other / len(has)
            independent = np.outer(one.mean(0), other.mean(0))
            inside = joint > 0
            information[inside] += joint[inside] * np.log(joint[inside] / independent[inside])
    entropy = np.diag(information).copy()
    np.fill_diagonal(information, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return information.max(1) / np.where(entropy > 0, entropy, np.nan)


def tad(codes: np.ndarray, attributes: np.ndarray) -> tuple[float, np.ndarray]:
    """(total AUROC difference, which attributes are captured bool [k]): [n, d] and 0 or 1 [n, k].

    An attribute is captured if one number predicts it with LEAST_AUROC and no other attribute shares more than
    MOST_SHARED of its entropy. TAD is the sum over these of the best number's AUROC less that of the second best (0.5
    where the code is a single number). ATTRS is how many they are.
    """
    areas = np.sort(auroc(codes, attributes), axis=1)
    best = areas[:, -1]
    second = areas[:, -2] if areas.shape[1] > 1 else np.full_like(best, 0.5)
    captured = (best >= LEAST_AUROC) & (shared_entropy(attributes) <= MOST_SHARED)  # NaN is not
    return float((best - second)[captured].sum()), captured


def tad_over_folds(codes: np.ndarray, attributes: np.ndarray) -> dict[str, float]:
    """Mean and deviation of TAD and ATTRS over the larger parts of `folds`, as InfoDiffusion reports them.

    It standardises the codes, which changes no AUROC.
    """
    results = [tad(codes[rows], attributes[rows]) for rows, _ in folds(len(codes))]
    totals, counts = np.array([total for total, _ in results]), np.array([kept.sum() for _, kept in results])
    return {
        "tad": float(totals.mean()),
        "tad_std": float(totals.std()),
        "attributes": float(counts.mean()),
        "attributes_std": float(counts.std()),
    }


def importances(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    test_factors: np.ndarray,
    discrete: bool | Sequence[bool] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """How much boosted trees use each number to predict each factor, [d, k], and how well they predict the test [k].

    codes [n, d], factors [n, k]. discrete: all factors, or each [k], are classes, scored by accuracy; else measures,
    by R^2, NaN where the test images have one value. A factor that is constant among the training images is used by
    none and NaN.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    for values in (codes, test_codes):
        check_finite(values, "The code of image")
    classes = np.broadcast_to(discrete, factors.shape[1])
    used, scores = np.zeros((codes.shape[1], factors.shape[1])), np.full(factors.shape[1], np.nan)
    for i in range(factors.shape[1]):
        if np.ptp(factors[:, i]) == 0:
            continue
        trees = (GradientBoostingClassifier if classes[i] else GradientBoostingRegressor)(random_state=0)
        trees.fit(codes, factors[:, i])
        used[:, i] = trees.feature_importances_
        if classes[i] or np.ptp(test_factors[:, i]) > 0:
            scores[i] = trees.score(test_codes, test_factors[:, i])
    return used, scores


def dci(importance: np.ndarray) -> tuple[float, float]:
    """(disentanglement, completeness) in [0, 1] of importances [d, k], at least 0.

    Disentanglement: one less the entropy of what a number is used for, over numbers by how much they are used.
    Completeness: one less the entropy of what predicts a factor, over factors likewise. NaN where nothing is used, or
    for a single factor or number, which has no entropy to lose.
    """
    return _concentration(importance), _concentration(importance.T)


def _concentration(importance: np.ndarray) -> float:
    """One less the entropy of each row, in units of the largest possible, weighted by the rows' sums."""
    total = importance.sum()
    if total == 0 or importance.shape[1] < 2:
        return float("nan")
    sums = importance.sum(1, keepdims=True)
    shares = importance / np.where(sums == 0, 1, sums)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1) / np.log(importance.shape[1])
    return float(((1 - entropy) * sums[:, 0]).sum() / total)
