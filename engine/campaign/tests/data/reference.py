"""Reference values of tests/statistics.rs, by SciPy.

Debian 12: apt-get install python3-scipy; /usr/bin/python3 reference.py > statistics.json
"""
import json
import numpy
import scipy
from scipy import stats

rng = numpy.random.default_rng(20261121)
samples = {
    "small_a": [4.1, 5.3, 3.9, 6.2, 5.5],
    "small_b": [6.0, 7.7, 5.8, 8.1, 6.9, 7.3],
    "ties_a": [1, 2, 2, 3, 3, 3, 4, 5, 5, 6],
    "ties_b": [2, 3, 3, 4, 5, 5, 5, 6, 7, 9, 9],
    "large_a": [round(x, 4) for x in rng.normal(100.0, 15.0, 60)],
    "large_b": [round(x, 4) for x in rng.normal(108.0, 25.0, 45)],
    "skewed": [round(x, 4) for x in rng.exponential(10.0, 40)],
}
pairs = [("small_a", "small_b"), ("ties_a", "ties_b"), ("large_a", "large_b"), ("skewed", "large_a")]


def single(values):
    values = numpy.asarray(values, float)
    t = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    t99 = stats.t.interval(0.99, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    boot = stats.bootstrap((values,), numpy.mean, confidence_level=0.95, n_resamples=200000,
                           batch=10000, method="BCa", random_state=1).confidence_interval
    mad = stats.median_abs_deviation(values)
    return {
        "mean": values.mean(), "sd": values.std(ddof=1),
        "quantiles": {str(q): numpy.quantile(values, q) for q in (0.0, 0.05, 0.25, 0.5, 0.9, 1.0)},
        "student95": t, "student99": t99, "bca95": [boot.low, boot.high],
        "robust_z": list(0.6745 * (values - numpy.median(values)) / mad),
    }


def two(a, b):
    a, b = numpy.asarray(a, float), numpy.asarray(b, float)
    welch = stats.ttest_ind(b, a, equal_var=False)
    mw = stats.mannwhitneyu(b, a, alternative="two-sided")
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    df = (va + vb) ** 2 / (va ** 2 / (len(a) - 1) + vb ** 2 / (len(b) - 1))
    half = stats.t.ppf(0.975, df) * (va + vb) ** 0.5
    diff = b.mean() - a.mean()
    pooled = (((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)) ** 0.5
    delta = numpy.sign(b[:, None] - a[None, :]).mean()
    return {"welch_t": welch.statistic, "welch_p": welch.pvalue, "difference95": [diff - half, diff + half],
            "mann_whitney_u": mw.statistic, "mann_whitney_p": mw.pvalue,
            "cohens_d": diff / pooled, "cliffs_delta": delta}


def tau(x, y):
    found = stats.kendalltau(x, y)
    return {"x": x, "y": y, "tau": found.statistic, "p": found.pvalue}


def by_definition(p, kind):
    """Holm and Benjamini-Hochberg as in R's p.adjust, which SciPy 1.10 lacks."""
    p = numpy.asarray(p)
    n = len(p)
    if kind == "holm":
        order = numpy.argsort(p)
        q = numpy.minimum(1, numpy.maximum.accumulate((n - numpy.arange(n)) * p[order]))
    else:
        order = numpy.argsort(p)[::-1]
        q = numpy.minimum(1, numpy.minimum.accumulate(n / numpy.arange(n, 0, -1) * p[order]))
    return list(q[numpy.argsort(order)])


p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.9, 0.04, 0.0001]
x40 = list(map(float, rng.integers(0, 12, 40)))
y40 = [round(v + float(e), 3) for v, e in zip(x40, rng.normal(0, 6, 40))]
print(json.dumps({
    "made_by": f"SciPy {scipy.__version__}, NumPy {numpy.__version__}",
    "samples": samples,
    "single": {name: single(values) for name, values in samples.items()},
    "two": [{"a": a, "b": b, **two(samples[a], samples[b])} for a, b in pairs],
    "kendall": [
        tau([1, 2, 3, 4, 5, 6, 7], [2, 1, 4, 3, 7, 5, 6]),
        tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]),
        tau(x40, y40),
        tau(list(range(33)), [round(v, 4) for v in rng.normal(0, 1, 33)]),
    ],
    "p": p, "holm": by_definition(p, "holm"), "benjamini_hochberg": by_definition(p, "bh"),
}, indent=1))
