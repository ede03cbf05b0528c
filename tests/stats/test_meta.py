"""Random-effects meta-analysis: against statsmodels, a slow likelihood and planted effects."""

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

import rlm
from rlm.errors import InputError


def made(rng, systems=12, tau=0.01, mean=0.005):
    errors = rng.uniform(0.002, 0.01, systems)
    return rng.normal(mean, tau, systems) + rng.normal(0, errors), errors


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_maximises_the_restricted_likelihood(seed):
    """The likelihood of all contrasts, by a multivariate normal density instead of a formula."""
    y, s = made(np.random.default_rng(seed))
    contrasts = np.linalg.svd(np.ones((1, len(y))))[2][1:]

    def loss(tau):
        covariance = contrasts @ np.diag(s**2 + tau**2) @ contrasts.T
        return -stats.multivariate_normal.logpdf(contrasts @ y, cov=covariance)

    expected = min(
        (optimize.minimize_scalar(loss, bounds=bounds, method="bounded") for bounds in ((0, 0.005), (0, 0.1))),
        key=lambda found: found.fun,
    )
    assert loss(rlm.stats.pool_effects(y, s).tau.value) <= expected.fun + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_given_the_variance_the_interval_is_that_of_hartung_and_knapp(seed):
    y, s = made(np.random.default_rng(seed), tau=0.03)
    found = rlm.stats.pool_effects(y, s)
    # With this variance added to each error there is none left between the systems.
    whole = combine_effects(y, s**2 + found.tau.value**2, method_re="iterated", use_t=True)
    assert found.mean.value == pytest.approx(whole.mean_effect_fe)
    q = np.sum((y - whole.mean_effect_fe) ** 2 / (s**2 + found.tau.value**2)) / (len(y) - 1)
    error = whole.sd_eff_w_fe * max(q, 1) ** 0.5
    assert found.mean.high - found.mean.value == pytest.approx(stats.t.ppf(0.975, len(y) - 1) * error)


def test_equal_effects_have_no_variance():
    found = rlm.stats.pool_effects([0.01, 0.01, 0.011], [0.02, 0.02, 0.02])
    assert found.tau.value == 0
    assert found.tau.low == 0


def test_the_intervals_hold():
    rng, held = np.random.default_rng(0), {"mean": 0, "tau": 0, "new": 0}
    for _ in range(150):
        found = rlm.stats.pool_effects(*made(rng))
        held["mean"] += not found.mean.excludes(0.005)
        held["tau"] += not found.tau.excludes(0.01)
        held["new"] += not found.new.excludes(rng.normal(0.005, 0.01))
    assert all(count >= 150 * 0.95 - 3 * (150 * 0.95 * 0.05) ** 0.5 for count in held.values()), held


@pytest.mark.parametrize(("effects", "errors"), [([1, 2], [1, 1]), ([1, 2, 3], [1, 0, 1]), ([1, 2, np.nan], [1, 1, 1])])
def test_what_cannot_be_pooled_is_an_error(effects, errors):
    with pytest.raises(InputError, match="expected at least 3 effects with standard errors above 0"):
        rlm.stats.pool_effects(effects, errors)
