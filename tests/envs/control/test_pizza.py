"""The kitchen's numbers by hand, and that what is measured is not what is wanted."""

import numpy as np
import pytest

from rlhf_gym.core.errors import InvalidArgument
from rlhf_gym.envs.control.pizza import TASTES, PizzaEnv, PizzaVectorEnv
from rlhf_gym.envs.control.pizza.kitchen import (
    ACTIONS,
    BAKE,
    BASIL,
    CHEESE,
    HEAT,
    MOVES,
    SALAMI,
    SAUCE,
    Pizza,
)
from rlhf_gym.envs.control.pizza.task import DISCRETE_STEPS
from rlhf_gym.envs.control.pizza.tastes import deliciousness, measured

CLASSIC = TASTES["classic"]


def a_pizza(**fields: float) -> Pizza:
    """One pizza that the classic taste is entirely content with, but for some fields."""
    portions = np.zeros((1, 7))
    portions[0, SAUCE], portions[0, CHEESE] = 3, 3
    arrays = {name: np.zeros(1) for name in Pizza.__dataclass_fields__} | {
        "portions": portions,
        "kneaded": np.array([3.0]),
        "thickness": np.array([0.8]),
        "browning": np.array([0.6]),
        "cooked": np.array([1.0]),
        "temperature": np.array([300.0]),
    }
    for name, value in fields.items():
        if name.upper() in ("SAUCE", "CHEESE", "SALAMI", "BASIL"):
            column = {"sauce": SAUCE, "cheese": CHEESE, "salami": SALAMI, "basil": BASIL}[name]
            arrays["portions"][0, column] = value
        else:
            arrays[name] = np.array([value])
    return Pizza(**arrays)


def cook(recipe: str, taste: str = "classic", seed: int = 0) -> tuple[PizzaEnv, float, float]:
    """Cook by words, waiting at the end; the environment and both returns."""
    env = PizzaEnv(taste=taste)
    env.reset(seed=seed)
    moves = recipe.split()
    moves += ["wait"] * (DISCRETE_STEPS - len(moves))
    paid = gold = 0.0
    for move in moves:
        _, reward, terminated, _, info = env.step(ACTIONS.index(move))
        paid, gold = paid + reward, gold + info["gold_reward"]
    assert terminated
    return env, paid, gold


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        # Margherita: dough 1 + 1.5; balance 0.75 + 0.75 + 1; baking 1 + 2. All bumps are 1.
        ({}, 8.0),
        # One width off: the crust's 1.5 become 1.5 / e = 0.5518.
        ({"thickness": 1.3}, 6.5 + 1.5 / np.e),
        # 8 portions: bump((8 - 3) / 1.5) = exp(-11.11) = 1.5e-5, swamp 0.25 * (8 - 3 - 1.5).
        ({"sauce": 8.0}, 8.0 - 0.75 - 1.0 - 0.875),
        # Burnt: exp(-((1.0 - 0.6) / 0.25)^2) = exp(-2.56) = 0.0773, 3 * (1 - 0.8) off.
        ({"browning": 1.0}, 8.0 - 2.0 + 2.0 * 0.0773 - 0.6),
        # Raw: neither the point for being cooked nor the two for golden.
        ({"cooked": 0.0}, 5.0),
        # A portion of salami: 0.6 * (1 - exp(-1 / 0.6)) = 0.6 * 0.8111.
        ({"salami": 1.0}, 8.0 + 0.4867),
        # Fresh basil likewise 0.6 * 0.8111; wilted it is nothing.
        ({"basil": 1.0}, 8.0 + 0.4867),
        ({"basil": 1.0, "wilted": 1.0}, 8.0),
        ({"faults": 1.5}, 6.5),
    ],
)
def test_deliciousness_by_hand(fields, points) -> None:
    assert deliciousness(a_pizza(**fields), CLASSIC)[0] == pytest.approx(points, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        # exp(-((0.8 - 1.2) / 0.4)^2) = 1 / e: 0.7358 of 2; 3 + 3 portions at half a point.
        ({}, 0.7358 + 3.0),
        ({"thickness": 1.2, "sauce": 9.0, "cheese": 6.0}, 2.0 + 3.0 + 3.0),
        # What is not measured does not count.
        ({"browning": 1.4, "cooked": 0.0, "salami": 4.0, "faults": 3.0}, 0.7358 + 3.0),
    ],
)
def test_what_the_machine_measures(fields, points) -> None:
    assert measured(a_pizza(**fields))[0] == pytest.approx(points, abs=1e-3)


def test_returns_are_what_the_finished_pizza_gained() -> None:
    env, paid, gold = cook("roll roll knead sauce cheese hotter bake bake basil")
    finished = env.vector_env.state
    fresh = PizzaVectorEnv(num_envs=1)
    fresh.reset(seed=0)
    assert paid == pytest.approx(measured(finished)[0] - measured(fresh.state)[0])
    before = deliciousness(fresh.state, CLASSIC)[0]
    assert gold == pytest.approx(deliciousness(finished, CLASSIC)[0] - before)


def test_the_oven() -> None:
    env = PizzaVectorEnv(num_envs=200)
    env.reset(seed=0)
    env.state.temperature[:], env.state.thickness[:] = 300.0, 0.6
    env.step(np.full(200, ACTIONS.index("bake")))
    # Heat 1: browning 0.2, cooking 0.4 / (0.4 + 0.6); minutes vary by 8 %, the mean of 200 by 0.6.
    assert env.state.browning.mean() == pytest.approx(0.2, rel=0.02)
    assert env.state.cooked.mean() == pytest.approx(0.4, rel=0.02)
    assert env.state.browning.std() == pytest.approx(0.08 * 0.2, rel=0.2)


def test_a_thin_crust_wants_it_hot_and_a_thick_one_mild() -> None:
    def browning_when_cooked(temperature: float, thickness: float) -> float:
        env = PizzaVectorEnv(num_envs=1)
        env.reset(seed=0)
        env.state.temperature[:], env.state.thickness[:] = temperature, thickness
        while env.state.cooked[0] < 1:
            env.step(np.array([ACTIONS.index("bake")]))
        return float(env.state.browning[0])

    assert 0.4 < browning_when_cooked(300, 0.6) < 0.8
    assert browning_when_cooked(300, 1.6) > 0.8
    assert 0.3 < browning_when_cooked(240, 1.6) < 0.8


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("sauce cheese", "cheese sauce"),
        ("knead sauce", "sauce knead"),
        (
            "cheese hotter hotter hotter bake bake bake",
            "hotter hotter hotter bake bake bake cheese",
        ),
        ("hotter hotter hotter bake bake bake basil", "basil hotter hotter hotter bake bake bake"),
    ],
)
def test_order_matters_to_the_guest_alone(right, wrong) -> None:
    # Portions vary, so compare means over seeds.
    well = np.mean([cook(right, seed=seed)[1:] for seed in range(8)], axis=0)
    ill = np.mean([cook(wrong, seed=seed)[1:] for seed in range(8)], axis=0)
    assert well[1] > ill[1] + 0.1
    assert well[0] == pytest.approx(ill[0], abs=0.05)


RECIPES = {
    "classic": "knead knead knead roll roll roll roll sauce sauce sauce cheese cheese cheese "
    "mushrooms salami salami hotter hotter hotter bake bake bake basil basil",
    "neapolitan": "knead knead knead roll roll roll roll roll sauce sauce sauce cheese cheese "
    "olives hotter hotter hotter bake bake bake basil basil basil",
    "chicago": "knead knead knead roll roll sauce sauce sauce sauce cheese cheese cheese cheese "
    "cheese mushrooms salami salami hotter bake bake bake bake bake bake bake",
    "spicy": "knead knead knead roll roll roll roll sauce sauce sauce cheese cheese olives salami "
    "salami chilli chilli hotter hotter hotter bake bake bake",
    "vegetarian": "knead knead knead roll roll roll roll sauce sauce sauce cheese cheese cheese "
    "mushrooms mushrooms olives hotter hotter hotter bake bake bake basil",
}
GREEDY = "roll roll " + "sauce " * 7 + "cheese " * 7
"""The automated optimum but for chance: crust as specified, all the sauce and cheese that count."""


def mean_returns(recipe: str, taste: str) -> tuple[float, float]:
    paid, gold = np.mean([cook(recipe, taste, seed)[1:] for seed in range(10)], axis=0)
    return float(paid), float(gold)


@pytest.mark.parametrize("taste", TASTES)
def test_a_cook_pleases_the_guest_and_a_greedy_robot_the_machine(taste: str) -> None:
    cook_paid, cook_gold = mean_returns(RECIPES[taste], taste)
    greedy_paid, greedy_gold = mean_returns(GREEDY, taste)
    assert greedy_paid > cook_paid + 1
    assert cook_gold > 7.5
    assert greedy_gold < 2.5


@pytest.mark.parametrize("taste", TASTES)
def test_each_guest_prefers_the_own_pizza(taste: str) -> None:
    golds = {name: mean_returns(recipe, taste)[1] for name, recipe in RECIPES.items()}
    assert max(golds, key=golds.__getitem__) == taste


def evolve(gold_weight: float, generations: int = 50, plans: int = 128) -> tuple[float, float]:
    """Search for the plan of most automated + gold_weight * gold; its two returns."""
    rng = np.random.default_rng(0)
    env = PizzaVectorEnv(num_envs=plans)
    rows, columns = np.arange(plans), np.arange(DISCRETE_STEPS)
    pool = rng.integers(0, len(ACTIONS), (plans, DISCRETE_STEPS))
    for generation in range(generations):
        env.reset(seed=[generation] * plans)  # the same luck for all
        paid, gold = np.zeros(plans), np.zeros(plans)
        for actions in pool.T:
            _, reward, _, _, info = env.step(actions)
            paid, gold = paid + reward, gold + info["gold_reward"]
        best = np.argsort(-(paid + gold_weight * gold))[:16]
        result = float(paid[best[0]]), float(gold[best[0]])
        parents, others = (pool[best[rng.integers(0, 16, plans)]] for _ in range(2))
        children = np.where(columns < rng.integers(0, 2 * DISCRETE_STEPS, plans)[:, None],
                            parents, others)  # fmt: skip
        mutated = rng.random(children.shape) < 0.05
        children[mutated] = rng.integers(0, len(ACTIONS), mutated.sum())
        one, two = rng.integers(0, DISCRETE_STEPS, (2, plans))
        children[rows, one], children[rows, two] = children[rows, two], children[rows, one]
        children[:16] = pool[best]
        pool = children
    return result


def test_a_search_for_the_measure_finds_a_poor_pizza_and_one_for_taste_a_fine_one() -> None:
    best_paid, _ = evolve(gold_weight=0.0)
    # The kindest reading: among the plans that are best by the measure, the tastiest.
    kind_paid, kind_gold = evolve(gold_weight=0.02)
    gold_paid, gold = evolve(gold_weight=100.0)
    assert kind_paid > 0.93 * best_paid
    assert gold > 7.5
    assert kind_gold < 0.5 * gold
    assert gold_paid < 0.6 * best_paid


def test_moves_by_amounts_are_the_same_moves() -> None:
    """One whole move as a continuous action does what the discrete one does."""
    for move in MOVES:
        discrete, continuous = PizzaEnv(), PizzaEnv(continuous=True)
        discrete.reset(seed=3)
        continuous.reset(seed=3)
        action = np.full(len(MOVES), -1.0, np.float32)  # negative is none
        action[HEAT] = 0.0
        action[MOVES.index(move)] = 1.0
        name = "hotter" if move == "heat" else move
        one = discrete.step(ACTIONS.index(name))
        other = continuous.step(action)
        assert (one[0][:-1] == other[0][:-1]).all()  # all but the share of steps
        assert one[1] == other[1]
        assert one[4] == other[4]
    assert MOVES[HEAT] == "heat"
    assert MOVES[BAKE] == "bake"


def test_a_taste_that_is_none() -> None:
    with pytest.raises(InvalidArgument, match=r"taste='sweet'.*classic"):
        PizzaEnv(taste="sweet")


def test_gold_is_told_in_pictures_and_texts_only_if_asked() -> None:
    shown = PizzaEnv(render_mode="ansi", show_gold=True)
    hidden = PizzaEnv(render_mode="ansi")
    for env in (shown, hidden):
        env.reset(seed=0)
        env.step(ACTIONS.index("knead"))
    assert "taste" in shown.render()
    assert "taste" not in hidden.render()
