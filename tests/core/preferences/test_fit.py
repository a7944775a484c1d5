import copy
import math

import numpy as np
import pytest
import torch

from rlhf_gym.core.calibration import pearson
from rlhf_gym.core.errors import InvalidArgument, InvalidData, NonFiniteTraining
from rlhf_gym.core.feedback import Query
from rlhf_gym.core.labelers import make_teacher, recorded_rewards
from rlhf_gym.core.labels import Skip
from rlhf_gym.core.preferences import (
    Comparisons,
    Encoding,
    FitConfig,
    RewardEnsemble,
    SegmentReplay,
    fit_ensemble,
)

FAST = FitConfig(learning_rate=3e-3, epochs=40)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def labelled(
    replay: SegmentReplay, count: int, teacher: str = "oracle", size: int = 2
) -> Comparisons:
    """Queries about `size` segments of 3 steps each."""
    data = Comparisons(replay.encoding, 3)
    rng = np.random.default_rng(1)
    queries = []
    for _ in range(count):
        batch = replay.sample_up_to(size, 3, rng)
        queries.append(Query(tuple(batch.segment(number) for number in range(size))))
    labels = make_teacher(teacher, recorded_rewards, seed=0).label(queries)
    data.add(zip(queries, labels, strict=True))
    return data


@pytest.mark.parametrize(("count", "size"), [(120, 2), (60, 4)])
def test_the_gold_reward_is_found(replay: SegmentReplay, count: int, size: int) -> None:
    """Untaught the correlation is about 0; taught by pairs or by rankings of four above 0.9."""
    ensemble = RewardEnsemble(replay.encoding, 3, (16, 16))
    report = fit_ensemble(ensemble, labelled(replay, count, size=size), FAST, generator=generator())
    seen, done = replay.recent(400)
    assert pearson(ensemble.rewards(seen, done), seen[:, 0]) > 0.9
    assert report.accuracy > 0.85
    assert report.held_out_accuracy.value > 0.8
    assert report.held_out_accuracy.low < report.held_out_accuracy.value
    assert report.loss < math.log(math.factorial(size))  # by chance
    assert report.comparisons == count


def test_members_do_not_touch_each_other(replay: SegmentReplay) -> None:
    """A member's parameters after a fit are the same whatever the other members' data are."""
    data, other = labelled(replay, 30), labelled(replay, 30)
    other._weights = [np.array([weights[0], 0, 5]) for weights in data._weights]
    fitted = []
    for one in (data, other):
        ensemble = RewardEnsemble(replay.encoding, 3, (8,))
        config = FitConfig(epochs=3, batch_size=8)
        fit_ensemble(ensemble, one, config, generator=generator())
        fitted.append([values[0].detach() for values in ensemble.parameters()])
    for first, second in zip(*fitted, strict=True):
        torch.testing.assert_close(first, second)


def test_held_out_comparisons_move_nothing_but_the_choice_of_epoch(replay: SegmentReplay) -> None:
    """With no weight on a comparison its answer may be turned without changing the gradient."""
    data = labelled(replay, 20)
    data._weights[7] = np.zeros(3, np.int64)
    turned = copy.deepcopy(data)
    items, liking = turned._rows[7]
    turned._rows[7] = (items[::-1], liking)
    losses = []
    for one in (data, turned):
        ensemble = RewardEnsemble(replay.encoding, 3, (8,))
        losses.append(fit_ensemble(ensemble, one, FitConfig(epochs=1), generator=generator()))
    assert losses[0].held_out_loss != losses[1].held_out_loss
    # One epoch that helps every member leaves the same parameters behind.
    assert losses[0].loss == pytest.approx(losses[1].loss, abs=5e-3)


def test_what_cannot_be_learned_raises_the_penalty(replay: SegmentReplay) -> None:
    """Answers by chance: held-out loss rises over training loss, and the l2 weight with it."""
    data = labelled(replay, 40)
    rng = np.random.default_rng(0)
    data._rows = [
        (items if rng.random() < 0.5 else items[::-1], liking) for items, liking in data._rows
    ]
    ensemble = RewardEnsemble(replay.encoding, 3, (64, 64))
    config = FitConfig(learning_rate=1e-2, epochs=60, patience=60, l2=1e-5)
    report = fit_ensemble(ensemble, data, config, generator=generator())
    assert float(ensemble.l2.min()) > 1e-5
    # The parameters kept are the best on what was held out, at worst those of the beginning.
    assert report.held_out_loss < 0.75


def test_no_penalty_stays_none(replay: SegmentReplay) -> None:
    ensemble = RewardEnsemble(replay.encoding, 3, (8,))
    config = FitConfig(epochs=3, l2=0.0)
    fit_ensemble(ensemble, labelled(replay, 20), config, generator=generator())
    assert ensemble.l2.tolist() == [0.0, 0.0, 0.0]


def test_ties_pull_returns_together(replay: SegmentReplay) -> None:
    data = labelled(replay, 60)
    data._rows = [(items, 0.5) for items, _ in data._rows]
    ensemble = RewardEnsemble(replay.encoding, 3, (16,))

    def spread() -> float:
        returns = ensemble.returns(data.observations, data.actions)
        return float(returns.detach().std(1).mean())

    before = spread()
    report = fit_ensemble(ensemble, data, FAST, generator=generator())
    assert spread() < 0.3 * before
    assert math.isnan(report.accuracy)  # nobody said which is better


def test_same_seed_same_fit(replay: SegmentReplay) -> None:
    data = labelled(replay, 20)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    ensembles = [RewardEnsemble(replay.encoding, 3, (8,)) for _ in range(2)]
    reports = [fit_ensemble(one, data, FAST, generator=generator()) for one in ensembles]
    assert reports[0] == reports[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_to_learn_from(replay: SegmentReplay) -> None:
    ensemble = RewardEnsemble(replay.encoding, 3, (8,))
    empty = Comparisons(replay.encoding, 3)
    with pytest.raises(InvalidData, match=r"no label compares anything \(0 were skipped\)"):
        fit_ensemble(ensemble, empty, generator=generator())
    batch = replay.sample_up_to(2, 3, np.random.default_rng(0))
    empty.add([(Query((batch.segment(0), batch.segment(1))), Skip())])
    with pytest.raises(InvalidData, match="1 were skipped"):
        fit_ensemble(ensemble, empty, generator=generator())


def test_one_comparison_is_enough_to_run(replay: SegmentReplay) -> None:
    ensemble = RewardEnsemble(replay.encoding, 3, (8,))
    report = fit_ensemble(ensemble, labelled(replay, 1), FAST, generator=generator())
    assert math.isfinite(report.loss)


def test_a_loss_that_is_not_finite_leaves_the_ensemble_as_it_was(replay: SegmentReplay) -> None:
    ensemble = RewardEnsemble(replay.encoding, 3, (8,))
    before = [values.detach().clone() for values in ensemble.parameters()]
    with pytest.raises(NonFiniteTraining, match="learning rate"):
        fit_ensemble(
            ensemble, labelled(replay, 20), FitConfig(learning_rate=1e30), generator=generator()
        )
    for values, kept in zip(ensemble.parameters(), before, strict=True):
        assert torch.equal(values, kept)


def test_mistakes_are_named(replay: SegmentReplay, encoding: Encoding) -> None:
    with pytest.raises(InvalidArgument, match="comparisons=3"):
        fit_ensemble(RewardEnsemble(encoding, 2), labelled(replay, 2), generator=generator())
    for wrong in (
        {"learning_rate": 0.0},
        {"epochs": 0},
        {"patience": 0},
        {"batch_size": 0},
        {"noise": 1.0},
        {"l2": -1.0},
        {"overfit": (2.0, 1.0)},
    ):
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            FitConfig(**wrong)  # type: ignore[arg-type]
