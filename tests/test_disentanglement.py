"""TAD, ATTRS and DCI against scikit-learn and SciPy, InfoDiffusion's protocol step by step, and codes made by hand."""

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from diffrep_jax.metrics import disentanglement as metrics
from diffrep_jax.tasks import _disentangle

RANDOM = np.random.default_rng(0)
LABELS = (RANDOM.random((200, 5)) < [0.5, 0.3, 0.1, 0.6, 0.5]).astype(float)
LABELS[:, 3] = np.where(RANDOM.random(200) < 0.9, LABELS[:, 0], LABELS[:, 3])  # shares much with the first
CODES = RANDOM.normal(size=(200, 7))
CODES[:, 2] -= 3 * LABELS[:, 1]
CODES[:, 4] += 2 * LABELS[:, 0]
CODES[:, 5] = np.round(CODES[:, 5])  # with ties
CODES[:, 6] = 0.25  # constant


def test_auroc_is_that_of_scikit_learn():
    found = metrics.auroc(CODES.astype(np.float32), LABELS)
    scores = CODES.astype(np.float32).astype(float)
    for i in range(LABELS.shape[1]):
        for j in range(CODES.shape[1]):
            both = [roc_auc_score(LABELS[:, i], sign * scores[:, j]) for sign in (1, -1)]
            np.testing.assert_allclose(found[i, j], max(both), rtol=1e-12)
    np.testing.assert_array_equal(found[:, 6], 0.5)


def test_an_attribute_of_all_images_or_none_tells_nothing():
    labels = np.stack([np.zeros(200), np.ones(200), LABELS[:, 1]], axis=1)
    np.testing.assert_array_equal(metrics.auroc(CODES, labels)[:2], 0.5)
    shared = metrics.shared_entropy(labels)
    assert np.isnan(shared[:2]).all() and shared[2] == pytest.approx(0, abs=1e-12)
    _, captured = metrics.tad(CODES, labels)
    assert captured.tolist() == [False, False, True]


def test_shared_entropy_is_the_largest_mutual_information():
    found = metrics.shared_entropy(LABELS)
    for i in range(LABELS.shape[1]):
        others = [mutual_info_score(LABELS[:, i], LABELS[:, j]) for j in range(LABELS.shape[1]) if j != i]
        own = entropy(np.bincount(LABELS[:, i].astype(int)) / len(LABELS))
        np.testing.assert_allclose(found[i], max(others) / own, rtol=1e-10)
    twins = np.stack([LABELS[:, 0], 1 - LABELS[:, 0]], axis=1)
    np.testing.assert_allclose(metrics.shared_entropy(twins), [1, 1], rtol=1e-12)
    np.testing.assert_allclose(metrics.shared_entropy(LABELS[:, :1]), [0], atol=1e-12)


def test_tad_counts_what_single_numbers_tell():
    """Attribute 0 is number 0, 1 is known from two numbers alike, 2 from none, 3 is a copy of 4."""
    labels = np.array([[i >> k & 1 for k in range(4)] for i in range(16)] * 5, float)
    labels = np.concatenate([labels, labels[:, 3:]], axis=1)
    codes = np.stack([labels[:, 0], labels[:, 1], -labels[:, 1], labels[:, 3]], axis=1)
    total, captured = metrics.tad(codes, labels)
    assert captured.tolist() == [True, True, False, False, False]
    assert total == pytest.approx(0.5)  # 1 - 0.5 of attribute 0; nothing of 1, whose two best are equal
    total, captured = metrics.tad(codes[:, :1], labels[:, :1])
    assert (total, captured.tolist()) == (pytest.approx(0.5), [True])


def test_the_folds_and_means_are_infodiffusions():
    totals, counts = [], []
    for rows, _ in KFold(n_splits=5, shuffle=True, random_state=0).split(CODES):
        codes, labels = StandardScaler().fit_transform(CODES[rows]), LABELS[rows]
        total = count = 0
        for i in range(labels.shape[1]):
            aurocs = sorted(
                max(roc_auc_score(labels[:, i], codes[:, j]), roc_auc_score(labels[:, i], -codes[:, j]))
                for j in range(codes.shape[1])
            )
            own = mutual_info_score(labels[:, i], labels[:, i])
            most = max(mutual_info_score(labels[:, i], labels[:, j]) for j in range(labels.shape[1]) if j != i)
            if aurocs[-1] >= 0.75 and most / own <= 0.2:
                total, count = total + aurocs[-1] - aurocs[-2], count + 1
        totals.append(total)
        counts.append(count)
    found = metrics.tad_over_folds(CODES, LABELS)
    expected = {
        "tad": np.mean(totals),
        "tad_std": np.std(totals),
        "attributes": np.mean(counts),
        "attributes_std": np.std(counts),
    }
    assert found == pytest.approx(expected, rel=1e-10)
    assert found["attributes"] >= 1  # something is captured


def test_dci_of_known_importances():
    assert metrics.dci(np.eye(4)) == pytest.approx((1, 1))
    assert metrics.dci(np.ones((5, 4))) == pytest.approx((0, 0), abs=1e-12)
    two_each = np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])  # each number has one use, each factor two numbers
    assert metrics.dci(two_each) == pytest.approx((1, 0.5))
    assert metrics.dci(two_each.T) == pytest.approx((0.5, 1))
    unused = np.vstack([np.eye(3), np.zeros(3)])
    assert metrics.dci(unused) == pytest.approx((1, 1))
    for nothing in (np.zeros((3, 3)), np.ones((1, 1))):
        assert np.isnan(metrics.dci(nothing)).all()


def test_dci_is_the_weighted_entropy_of_scipy():
    importance = RANDOM.random((6, 4)) ** 4
    rows = 1 - entropy(importance.T, base=4)
    columns = 1 - entropy(importance, base=6)
    expected = rows @ importance.sum(1) / importance.sum(), columns @ importance.sum(0) / importance.sum()
    np.testing.assert_allclose(metrics.dci(importance), expected, rtol=1e-10)


def test_importances_are_those_of_boosted_trees():
    """Each factor is one number's sign, or the number itself; the last factor is constant."""
    codes, test = RANDOM.normal(size=(150, 4)), RANDOM.normal(size=(80, 4))

    def factors(codes):
        return np.stack([codes[:, 2] > 0, codes[:, 0] > 0.3, np.ones(len(codes))], axis=1).astype(float)

    used, told = metrics.importances(codes, factors(codes), test, factors(test), discrete=True)
    trees = GradientBoostingClassifier(random_state=0).fit(codes, factors(codes)[:, 0])
    np.testing.assert_allclose(used[:, 0], trees.feature_importances_, rtol=1e-6)
    assert told[0] == pytest.approx(trees.score(test, factors(test)[:, 0]))
    assert used.argmax(0)[:2].tolist() == [2, 0] and used[:, 2].tolist() == [0] * 4 and np.isnan(told[2])
    assert min(metrics.dci(used)) > 0.7
    used, told = metrics.importances(codes, codes[:, [3, 1]], test, test[:, [3, 1]], discrete=False)
    assert used.argmax(0).tolist() == [3, 1] and told.min() > 0.9


@pytest.mark.filterwarnings("error")
def test_a_measure_is_not_judged_by_one_image_or_one_value_but_used_all_the_same():
    """R^2 is a share of the test images' variance, and there is none; the accuracy of one image is 0 or 1."""
    codes = RANDOM.normal(size=(40, 3))
    factors = np.stack([codes[:, 0], codes[:, 1] > 0], axis=1)
    for test in (codes[:1], codes[[5, 5, 5]]):
        values = np.stack([test[:, 0], test[:, 1] > 0], axis=1)
        used, told = metrics.importances(codes, factors, test, values, discrete=[False, True])
        assert np.isnan(told[0]) and told[1] == 1 and used.argmax(0).tolist() == [0, 1]
    report = _disentangle.measure(codes[:5], factors[:5], ("size", "has"), np.array([False, True]), 5)
    assert report["dci"]["each"]["size"] is None and report["dci"]["each"]["has"] in (0, 1)


def test_measures_and_what_images_have_are_judged_each_in_its_own_way():
    """The columns in a mixture as alone: TAD of the binary ones, trees of the right kind for each."""
    rng = np.random.default_rng(1)
    has = (rng.random((60, 2)) < 0.5).astype(float)
    measures = rng.normal(size=(60, 1))
    codes = np.concatenate([has + 0.1 * rng.normal(size=(60, 2)), measures], axis=1)
    values, binary = np.stack([has[:, 0], measures[:, 0], has[:, 1]], axis=1), np.array([True, False, True])
    mixed = _disentangle.measure(codes, values, ("a", "size", "b"), binary, 60)
    alone = _disentangle.measure(codes, has, ("a", "b"), binary[[0, 2]], 60)
    assert mixed["factors"] == ["a", "size", "b"] and mixed["captured"] == alone["captured"] == ["a", "b"]
    assert {name: mixed[name] for name in ("tad", "attributes")} == {
        name: alone[name] for name in ("tad", "attributes")
    }
    dci = mixed["dci"]
    assert dci["measured_by"] == "accuracy or r2" and dci["informativeness"] is None
    assert [dci["each"][name] for name in ("a", "b")] == list(alone["dci"]["each"].values()) == [1.0, 1.0]
    size = _disentangle.measure(codes, measures, ("size",), binary[[1]], 60)
    assert "tad" not in size and size["dci"]["each"]["size"] == dci["each"]["size"] > 0.8
    assert (alone["dci"]["measured_by"], size["dci"]["measured_by"]) == ("accuracy", "r2")
