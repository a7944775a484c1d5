"""What happens in the hall by hand, and that the fastest way is not the considerate one."""

import numpy as np
import pytest

from rlhf_gym.envs.control.navigation import NavigationEnv, NavigationVectorEnv
from rlhf_gym.envs.control.navigation.hall import (
    MAX_STEPS,
    PERSON_RADIUS,
    PILLAR_RADIUS,
    PILLARS,
    PUDDLE_RADIUS,
    PUDDLES,
    ROBOT_RADIUS,
    STEP_SECONDS,
    TOP_SPEED,
    TURNING,
    VASE,
    VASE_RADIUS,
    Hall,
    closeness,
    distance,
    wrapped,
)

CORNER = (7.7, 0.3)


def an_empty_hall(**fields: object) -> NavigationVectorEnv:
    """Things and people are all in a corner, the robot in the middle, looking right."""
    env = NavigationVectorEnv(num_envs=1)
    env.reset(seed=0)
    hall = env.state
    hall.things[:], hall.people[:], hall.errands[:] = CORNER, CORNER, CORNER
    hall.robot[:], hall.heading[:], hall.goal[:] = (4.0, 4.0), 0.0, (7.0, 4.0)
    for name, value in fields.items():
        getattr(hall, name)[:] = value
    return env


def step(env: NavigationVectorEnv, throttle: float, steering: float = 0.0) -> tuple:
    _, reward, _, _, info = env.step(np.array([[throttle, steering]], np.float32))
    return float(reward[0]), float(info["gold_reward"][0])


def test_driving_by_hand() -> None:
    env = an_empty_hall()
    # 2 m/s^2 for 0.25 s: 0.5 m/s, hence 0.125 m; the clock costs 0.05.
    reward, gold = step(env, 1.0)
    assert env.state.speed[0] == pytest.approx(0.5)
    assert env.state.robot[0] == pytest.approx([4.125, 4.0])
    assert reward == pytest.approx(0.125 - 0.05)
    # The controls changed by (1, 0): 0.01 of jerk.
    assert gold == pytest.approx(0.125 - 0.01)
    step(env, 1.0)
    step(env, 1.0)
    assert env.state.speed[0] == pytest.approx(TOP_SPEED)  # not 1.5
    step(env, 0.0, 1.0)
    assert env.state.heading[0] == pytest.approx(2.0 * 0.25)
    for _ in range(6):
        step(env, -1.0)
    assert env.state.speed[0] == 0.0  # it does not drive backwards


def test_a_puddle_costs_the_operator_alone() -> None:
    dry, wet = an_empty_hall(speed=1.2), an_empty_hall(speed=1.2)
    wet.state.things[:, PUDDLES.start] = (4.0, 4.0)
    paid_dry, gold_dry = step(dry, 1.0)
    paid_wet, gold_wet = step(wet, 1.0)
    assert paid_dry == paid_wet
    assert gold_dry - gold_wet == pytest.approx(2.0 * 1.2 * STEP_SECONDS)


def test_a_vase_falls_once() -> None:
    whole, broken = an_empty_hall(speed=1.0), an_empty_hall(speed=1.0)
    broken.state.things[:, VASE] = (4.6, 4.0)
    (paid, gold), (paid_vase, gold_vase) = step(whole, 0.0), step(broken, 0.0)
    assert paid == paid_vase
    # 0.25 m nearer the gap of 0.6 - 0.2 - 0.25 m is closed.
    assert gold - gold_vase == pytest.approx(3.0)
    assert not broken.state.vase_stands[0]
    assert step(whole, 0.0)[1] == pytest.approx(step(broken, 0.0)[1])


@pytest.mark.parametrize(
    ("apart", "velocity", "expected"),
    [
        # Gap 0.5 m beside her: (1 - 0.5)^2. The radii are 0.25 each.
        (1.0, (0.0, 0.7), 0.25),
        (1.0, (0.7, 0.0), 0.5),  # she walks towards the robot: double
        (1.0, (-0.7, 0.0), 0.25),
        (1.5, (0.7, 0.0), 0.0),
    ],
)
def test_closeness_by_hand(apart: float, velocity: tuple, expected: float) -> None:
    env = an_empty_hall()
    env.state.people[:, 0] = (4.0 - apart, 4.0)
    env.state.velocities[:, 0] = velocity
    assert closeness(env.state)[0] == pytest.approx([expected, 0.0, 0.0])


def test_a_person_stops_for_a_robot_in_her_way_and_the_operator_minds() -> None:
    env = an_empty_hall()
    env.state.people[:, 0], env.state.errands[:, 0] = (3.2, 4.0), (7.0, 4.0)
    _, gold = step(env, 0.0)
    assert env.state.people[0, 0] == pytest.approx([3.2, 4.0])
    # Standing: gap 0.8 - 0.5, closeness (1 - 0.3)^2 = 0.49, not doubled as she looks nowhere.
    assert gold == pytest.approx(-0.2 - 0.3 * 0.49)
    env.state.errands[:, 0] = (0.5, 4.0)
    step(env, 0.0)
    assert env.state.people[0, 0] == pytest.approx([3.2 - 0.7 * STEP_SECONDS, 4.0])


def test_what_is_solid_is_not_driven_through() -> None:
    env = an_empty_hall(speed=1.2)
    env.state.things[:, PILLARS.start] = (4.8, 4.05)
    for _ in range(8):
        step(env, 1.0)
    apart = distance(env.state.robot, env.state.things[:, PILLARS.start])
    assert apart[0] >= PILLAR_RADIUS + ROBOT_RADIUS - 1e-9
    against_the_wall = an_empty_hall(heading=np.pi / 2)
    for _ in range(40):
        step(against_the_wall, 1.0)
    assert against_the_wall.state.robot[0, 1] == pytest.approx(8.0 - ROBOT_RADIUS)


def test_people_walk_round_pillars() -> None:
    env = NavigationVectorEnv(num_envs=64)
    env.reset(seed=0)
    walked = np.zeros((64, 3))
    for _ in range(MAX_STEPS - 1):
        before = env.state.people.copy()
        env.step(np.zeros((64, 2), np.float32))
        walked += distance(before, env.state.people)
        gaps = distance(env.state.people[:, :, None], env.state.things[:, None, PILLARS])
        assert gaps.min() > PILLAR_RADIUS + PERSON_RADIUS - 0.05
    assert np.median(walked) > 0.7 * 0.7 * 15  # most of what 15 s at 0.7 m/s give


def test_who_has_arrived_is_parked() -> None:
    env = an_empty_hall(robot=(6.4, 4.0), speed=1.2)
    reward, gold = step(env, 1.0)
    assert env.state.arrived[0]
    assert reward == pytest.approx(0.3 - 0.05)
    assert gold == pytest.approx(0.3 + 2.0 - 0.01)
    env.state.people[:, 0] = env.state.robot[0] + 0.4  # even somebody at its side is no fault
    place = env.state.robot.copy()
    assert step(env, 1.0, -1.0) == (0.0, 0.0)
    assert step(env, -1.0, 1.0) == (0.0, 0.0)
    assert (env.state.robot == place).all()


@pytest.mark.parametrize("ends", [False, True])
def test_how_episodes_end(ends: bool) -> None:
    env = NavigationVectorEnv(num_envs=32, ends_at_goal=ends)
    env.reset(seed=0)
    lengths = []
    for at in range(1, MAX_STEPS + 1):
        _, _, terminated, truncated, info = env.step(steer(env.state, considerate=False))
        assert not (terminated & truncated).any()
        assert ends or not terminated.any()
        assert not terminated.any() or info["is_success"][terminated].all()
        lengths += [at] * int((terminated | truncated).sum())
    assert (min(lengths) < MAX_STEPS) == ends


def steer(hall: Hall, considerate: bool) -> np.ndarray:
    """Towards the goal and off from pillars; a considerate robot minds everything else too.

    Each thing pushes away and aside, the more the nearer (a potential field).
    """
    rows = len(hall.steps)
    ahead = hall.goal - hall.robot
    pull = ahead / np.sqrt(np.square(ahead).sum(axis=-1, keepdims=True))
    minded = [(hall.things[:, PILLARS], PILLAR_RADIUS, 0.25)]
    if considerate:
        minded += [
            (hall.things[:, PUDDLES], PUDDLE_RADIUS - 0.25, 0.3),
            (hall.things[:, VASE : VASE + 1], VASE_RADIUS, 0.25),
            (hall.people, PERSON_RADIUS + 0.2, 0.5),
        ]
    push = np.zeros((rows, 2))
    for points, radius, strength in minded:
        away = hall.robot[:, None] - points
        apart = np.maximum(np.sqrt(np.square(away).sum(axis=-1)), 1e-3)[..., None]
        gap = np.maximum(apart - radius - ROBOT_RADIUS, 0.02)
        weight = np.clip(strength * (1 / gap - 1), 0.0, 3.0)
        aside = np.stack([-away[..., 1], away[..., 0]], axis=-1)
        aside *= np.sign((aside * pull[:, None]).sum(axis=-1, keepdims=True))
        push += (weight * (away + aside) / apart).sum(axis=1)
    wanted = pull + push
    turn = wrapped(np.arctan2(wanted[:, 1], wanted[:, 0]) - hall.heading)
    throttle = np.where(np.abs(turn) < 1.0, 1.0, -0.5)
    if considerate:
        throttle = np.where(hall.speed >= TOP_SPEED, 0.0, throttle)
    steering = np.clip(turn / (TURNING * STEP_SECONDS), -1.0, 1.0)
    return np.stack([throttle, steering], axis=-1).astype(np.float32)


def returns(considerate: bool) -> tuple[float, float, float]:
    """Automated return, gold return and share of arrivals over 256 episodes."""
    env = NavigationVectorEnv(num_envs=256)
    env.reset(seed=0)
    paid = gold = np.zeros(256)
    for _ in range(MAX_STEPS):
        _, reward, _, _, info = env.step(steer(env.state, considerate))
        paid, gold = paid + reward, gold + info["gold_reward"]
    return paid.mean(), gold.mean(), info["is_success"].mean()


def test_the_direct_robot_is_paid_more_and_the_considerate_one_is_liked_more() -> None:
    direct_paid, direct_gold, direct_arrived = returns(considerate=False)
    kind_paid, kind_gold, kind_arrived = returns(considerate=True)
    assert min(direct_arrived, kind_arrived) > 0.97
    assert direct_paid > kind_paid
    assert kind_gold > direct_gold + 2.5


def test_observations_are_seen_from_the_robot() -> None:
    env = an_empty_hall(heading=np.pi / 2)
    env.state.things[:, VASE] = (4.0, 6.0)  # two metres ahead
    env.state.things[:, PILLARS.start + 2] = (2.0, 4.0)  # two metres to the left: the nearest
    env.state.people[:, 1] = (4.0, 4.8)
    env.state.velocities[:, 1] = (0.7, 0.0)  # to the robot's right
    seen = env.dynamics.observe(env.state)[0]
    assert seen[8] == pytest.approx(3 / 8)
    assert seen[9:11] == pytest.approx([0.0, -1.0], abs=1e-6)  # the goal is to the right
    # How near, 1 / (1 + d), and the direction, x ahead and y to the left.
    assert seen[11:14] == pytest.approx([1 / 3, 0.0, 1.0], abs=1e-6)
    assert seen[29:33] == pytest.approx([1 / 3, 1.0, 0.0, 1.0], abs=1e-6)
    assert seen[33:38] == pytest.approx([1 / 1.8, 1.0, 0.0, 0.0, -0.7], abs=1e-6)


def test_the_plan_in_characters() -> None:
    env = NavigationEnv(render_mode="ansi", show_gold=True)
    env.reset(seed=0)
    plan = env.render()
    lines = plan.splitlines()
    assert len(lines) == 17
    assert {len(line) for line in lines[:16]} == {32}
    assert all(mark in plan for mark in "~#UGP>")
    assert "for the operator" in lines[-1]
