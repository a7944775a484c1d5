"""The over-optimisation study: best-of-n without bias, fits that find what was put in, a run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.core.models import ModelSize
from rlhf_gym.envs.text import TextGenerationVectorEnv
from rlhf_gym.pipelines.studies import overoptimisation as study
from rlhf_gym.pipelines.studies import overoptimisation_cells as cells
from rlhf_gym.pipelines.studies.overoptimisation_cells import Proxy, combine_scores
from rlhf_gym.pipelines.studies.overoptimisation_fits import (
    Fit,
    best_of_n,
    best_of_n_kl,
    fit_curve,
    fit_with_ranges,
)
from rlhf_gym.pipelines.studies.overoptimisation_picture import draw
from rlhf_gym.pipelines.studies.overoptimisation_report import (
    Curve,
    Unit,
    advice,
    bon_curves,
    course_report,
    defence_report,
    fit_report,
    fits_of,
    rl_curves,
)


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 6)), rng.normal(size=(2, 6))
    found = best_of_n(proxy, gold, [1, 2, 4, 6])
    for row in range(2):
        for column, n in enumerate([1, 2, 4, 6]):
            subsets = itertools.combinations(range(6), n)
            best = [gold[row, max(subset, key=lambda i: proxy[row, i])] for subset in subsets]
            assert found[row, column] == pytest.approx(np.mean(best))


def test_best_of_n_by_hand() -> None:
    # Proxy ranks b, a, c. Pairs: ab -> a, ac -> c, bc -> c.
    proxy, gold = np.array([[0.0, -1.0, 1.0]]), np.array([[10.0, 20.0, 40.0]])
    assert best_of_n(proxy, gold, [2])[0, 0] == pytest.approx((10 + 40 + 40) / 3)


def test_best_of_n_with_five_hundred_stays_finite() -> None:
    scores = np.arange(512.0)[None]
    assert best_of_n(scores, scores, [1, 256, 512])[0].tolist() == pytest.approx(
        # The largest of n out of 0 ... N - 1: n (N + 1) / (n + 1) - 1.
        [255.5, 256 * 513 / 257 - 1, 511.0]
    )


@pytest.mark.parametrize("n", [0, 7])
def test_best_of_more_than_there_are(n: int) -> None:
    with pytest.raises(InvalidArgument, match="samples"):
        best_of_n(np.zeros((1, 6)), np.zeros((1, 6)), [n])


def test_kl_of_best_of_n() -> None:
    # log 2 - 1/2 and log 4 - 3/4.
    assert best_of_n_kl(np.array([1.0, 2.0, 4.0])).tolist() == pytest.approx(
        [0, 0.19315, 0.63629], abs=1e-5
    )


@pytest.mark.parametrize(
    ("fit", "peak", "gain"),
    [
        (Fit("bon", 0.8, 0.1), 4.0, 1.6),  # alpha^2 / (4 beta)
        (Fit("rl", 1.0, 0.5), np.e, 0.5 * np.e),  # exp(2 - 1), where the gain is beta d
        (Fit("bon", 0.8, 0.0), np.inf, np.inf),
    ],
)
def test_peaks(fit: Fit, peak: float, gain: float) -> None:
    assert fit.peak == pytest.approx(peak)
    if np.isfinite(peak):
        assert float(fit.gain(np.array(peak))) == pytest.approx(gain)
        near = fit.gain(np.array([0.99 * peak, 1.01 * peak]))
        assert (near < gain).all()


@pytest.mark.parametrize("form", ["bon", "rl"])
def test_a_fit_finds_what_was_put_in(form: str) -> None:
    d = np.linspace(0.3, 6, 30)
    truth = Fit(form, 0.9, 0.3)  # type: ignore[arg-type]
    found = fit_curve(truth.form, d, truth.gain(d))
    assert found.alpha == pytest.approx(0.9)
    assert found.beta == pytest.approx(0.3)


def curve(form: str, alpha: float, beta: float, noise: float = 0.1) -> Curve:
    rng = np.random.default_rng(1)
    d = np.tile(np.linspace(0.4, 6, 20), (4, 1))
    gain = Fit(form, alpha, beta).gain(d)  # type: ignore[arg-type]
    if form == "bon":
        gain = np.repeat(gain[:, None], 5, axis=1)
    return Curve(form, d, gain + noise * rng.normal(size=gain.shape), gain)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["bon", "rl"])
def test_intervals_hold_the_truth(form: str) -> None:
    one = curve(form, 0.8, 0.4)
    fit = fit_with_ranges(one.form, one.points(), one.resample)
    assert fit.alpha.low < 0.8 < fit.alpha.high
    assert fit.beta.low < 0.4 < fit.beta.high
    truth = Fit(one.form, 0.8, 0.4).peak ** 2
    assert fit.peak_kl.low < truth < fit.peak_kl.high
    assert fit.turned > 0.9
    assert fit.r_squared > 0.5


def test_a_curve_that_never_turns_has_no_peak() -> None:
    one = curve("bon", 0.8, -0.1)
    fit = fit_with_ranges("bon", one.points(), one.resample)
    assert fit.turned == 0.0
    assert fit.peak_kl.value == np.inf
    report = fit_report({"p": fit}, {}, seeds=4)
    assert report.rows[0][4:6] == ["none up to 36", ""]  # d was 6 at most


def test_a_defence_that_helps_and_one_that_does_not() -> None:
    curves = {
        "bare": curve("rl", 0.8, 0.4),
        "better": curve("rl", 0.8, 0.3),
        "worse": curve("rl", 0.6, 0.4),
    }
    report = defence_report(curves, "bare", ["better", "worse"], resamples=50)
    assert [row[1:] for row in report.rows] == [["100%", "100%"], ["0%", "0%"]]


def test_the_thirds_of_training() -> None:
    falling = Curve(
        "rl",
        d=np.tile([[1.0, 2, 3]], (2, 1)),
        gold=np.array([[0.0, 1, 0.5], [0.0, 1, 0.3]]),
        proxy=np.array([[0.0, 1, 2], [0.0, 1, 3]]),
    )
    gold, proxy = course_report({"p": falling}).rows
    # Falls by 0.5 and 0.7.
    assert gold[:5] == ["p", "gold", "+0.00", "+1.00", "+0.40"]
    assert gold[5].startswith("-0.600")
    assert gold[6] == "9.0"  # nats
    assert proxy[4] == "+2.50"


def test_cells_as_curves() -> None:
    unit = Unit(mean=0.1, deviation=0.5)
    rl = rl_curves(
        {
            "p": [
                {"kl": [-0.1, 4.0, 9.0], "gold": [0.1, 0.6, 0.6], "proxy": [0.0, 1, 2]},
                {"kl": [0.0, 1.0], "gold": [0.1, 0.35], "proxy": [0.0, 1]},
            ]
        },
        unit,
    )["p"]
    assert rl.d[:, :2].tolist() == [[0.0, 2.0], [0.0, 1.0]]
    assert np.isnan(rl.d[1, 2])  # the second seed has ended
    assert rl.gold[:, 1] == pytest.approx([1.0, 0.5])
    d, gain = rl.points()  # what is still the reference is no point
    assert d.tolist() == [2.0, 3.0, 1.0]
    assert gain == pytest.approx([1.0, 1.0, 0.5])
    gold = np.full((2, len(cells.SIZES)), 0.35)
    bon = bon_curves({"p": [{"gold": gold.tolist(), "proxy": gold.tolist()}]}, unit)["p"]
    assert bon.gold.shape == (1, 2, len(cells.SIZES) - 1)
    assert bon.gold == pytest.approx(0.5)


def test_ensembles_combine_as_their_reward_does() -> None:
    scores = np.array([[0.0, 3.0], [1.0, 3.0], [2.0, 3.0]])
    deviation = np.sqrt(2 / 3)
    assert combine_scores(scores, "single").tolist() == [0.0, 3.0]
    assert combine_scores(scores, "minimum").tolist() == [0.0, 3.0]
    assert combine_scores(scores, "mean").tolist() == [1.0, 3.0]
    assert combine_scores(scores, "deviations").tolist() == pytest.approx([1 - deviation, 3.0])
    assert combine_scores(scores, "variance").tolist() == pytest.approx([1 - 2 / 3, 3.0])


def test_all_of_it_once_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs, proxies, pool, best of n, PPO, and nothing computed twice."""
    for module in (study, cells):
        for name, value in {
            "MOST_PAIRS": 24,
            "HELD_OUT_PAIRS": 8,
            "POOL_PROMPTS": 2,
            "POOL_SAMPLES": 6,
            "SIZES": (1, 2, 6),
            "TOKENS": 800,
        }.items():
            if name in vars(module):
                monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(cells, "MEMBERS", 2)
    monkeypatch.setitem(cells.SHAPES, "1x8", ModelSize(n_layer=1, n_head=1, n_embd=8))
    base, ensemble = Proxy("1x8", 20), Proxy("1x8", 20, "minimum")
    monkeypatch.setattr(study, "BON", ((base, ensemble),))
    monkeypatch.setattr(study, "PPO_CURVES", (base, ensemble))
    bon, rl = study.compute(tmp_path, seeds=1)
    assert set(bon) == set(rl) == {base.name, ensemble.name}
    (curve_,) = rl[base.name]
    assert curve_["kl"][0] == pytest.approx(0.0, abs=1e-4)
    assert curve_["tokens"] == sorted(curve_["tokens"])
    assert np.shape(bon[base.name][0]["gold"]) == (2, 3)
    scores = np.array(bon[base.name][0]["proxy"])
    assert (np.diff(scores) >= 0).all()  # more to choose from is never worse by the proxy
    pairs = [json.loads(line) for line in (tmp_path / "pairs/0/pairs.jsonl").open()]
    assert len(pairs) == 24
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr(TextGenerationVectorEnv, "step", refuse)
    assert study.compute(tmp_path, seeds=1) == (bon, rl)


def test_reports_read_well() -> None:
    bon, rl = (
        fits_of({"p": curve(form, alpha, 0.4)}) for form, alpha in (("bon", 0.8), ("rl", 0.7))
    )
    report = fit_report(bon, rl, seeds=4)
    assert [row[0] for row in report.rows] == ["best of n", "PPO"]
    assert "turns" in report.markdown()
    # exp(2 * (0.7 / 0.4 - 1)) = 4.48 nats
    assert advice(rl["p"], "p").startswith("Early stopping, PPO against p: the fitted gold peaks")
    assert rl["p"].peak_kl.low < 4.48 < rl["p"].peak_kl.high


@pytest.mark.parametrize("form", ["bon", "rl"])
def test_the_picture(form: str, tmp_path: Path) -> None:
    curves = {"p": curve(form, 0.8, 0.4)}
    picture = draw(curves, fits_of(curves), tmp_path / "curves.png")
    assert picture.stat().st_size > 10_000
