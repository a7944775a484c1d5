"""A hall with pillars, puddles, a vase and people walking about, and a robot that drives in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_gym.envs.control.dynamics import State
from rlhf_gym.envs.control.random import BoolArray, Draws, FloatArray, IntArray

SIDE = 8.0
"""Of the square hall, metres."""
STEP_SECONDS = 0.25
MAX_STEPS = 60

PILLARS, PUDDLES, VASE = slice(0, 3), slice(3, 6), 6
"""Rows of `Hall.things`."""
THINGS, PEOPLE = 7, 3
PILLAR_RADIUS, PUDDLE_RADIUS, VASE_RADIUS = 0.45, 0.75, 0.2
PERSON_RADIUS, ROBOT_RADIUS, GOAL_RADIUS = 0.25, 0.25, 0.45
"""Metres."""

TOP_SPEED, WALKING_SPEED = 1.2, 0.7
"""Metres a second."""
ACCELERATION, TURNING = 2.0, 2.0
"""Metres a second squared and radians a second, at full throttle and full lock."""
PATIENCE = 0.9
"""A person stops for a robot that is nearer than this, in metres, and ahead of her."""


@dataclass
class Hall(State):
    """Halls, n rows; metres, seconds, radians; the origin is a corner.

    Args:
        robot: where the robot's centre is, shape (n, 2).
        heading: where it looks, counterclockwise from the x axis, shape (n,).
        speed: forwards, shape (n,).
        controls: the last action, shape (n, 2).
        goal: shape (n, 2).
        things: pillars, puddles, the vase, shape (n, 7, 2).
        vase_stands: shape (n,).
        people: shape (n, 3, 2).
        velocities: of the people, shape (n, 3, 2).
        errands: where they are going, shape (n, 3, 2).
        arrived: the robot is at its goal and stays there, shape (n,).
        steps: taken, shape (n,).
        trail: where the robot was after each step, for pictures, shape (n, 61, 2).
        paid: automated reward so far, shape (n,).
        gold: gold reward so far, shape (n,).
    """

    robot: FloatArray
    heading: FloatArray
    speed: FloatArray
    controls: FloatArray
    goal: FloatArray
    things: FloatArray
    vase_stands: BoolArray
    people: FloatArray
    velocities: FloatArray
    errands: FloatArray
    arrived: BoolArray
    steps: IntArray
    trail: NDArray[np.float32]
    paid: FloatArray
    gold: FloatArray


class Events(NamedTuple):
    """What happened in a step that somebody may care about; shape (n,) each.

    Attributes:
        progress: metres that the goal came nearer.
        arrived: the robot came to its goal in this step.
        bumped: it ran into a pillar, a wall or a person.
        in_puddle: metres driven through puddles.
        vase_fell: it knocked the vase over.
        halted: how many people had to stop for it.
        jerk: squared change of the controls.
    """

    progress: FloatArray
    arrived: BoolArray
    bumped: BoolArray
    in_puddle: FloatArray
    vase_fell: BoolArray
    halted: FloatArray
    jerk: FloatArray


def new_hall(draws: Draws) -> Hall:
    """The robot on the left, its goal on the right, things between, people anywhere."""
    count = draws.count
    robot = np.stack([draws.uniform(0.6, 1.0), draws.uniform(1.0, SIDE - 1.0)], axis=-1)
    goal = np.stack([draws.uniform(7.0, 7.4), draws.uniform(1.0, SIDE - 1.0)], axis=-1)
    # Seven of nine cells between them: however they fall, some way is open.
    cells = draws.permutation(9)[:, :THINGS]
    centres = np.stack([2.3 + 1.7 * (cells % 3), 1.6 + 2.4 * (cells // 3)], axis=-1)
    people = draws.uniform(0.5, SIDE - 0.5, (PEOPLE, 2))
    people[..., 0] = np.maximum(people[..., 0], 2.0)  # nobody stands where the robot begins
    trail = np.repeat(robot[:, None].astype(np.float32), MAX_STEPS + 1, axis=1)
    return Hall(
        robot=robot,
        heading=draws.uniform(-0.6, 0.6),
        speed=np.zeros(count),
        controls=np.zeros((count, 2)),
        goal=goal,
        things=centres + draws.uniform(-0.3, 0.3, (THINGS, 2)),
        vase_stands=np.ones(count, dtype=np.bool_),
        people=people,
        velocities=np.zeros((count, PEOPLE, 2)),
        errands=draws.uniform(0.5, SIDE - 0.5, (PEOPLE, 2)),
        arrived=np.zeros(count, dtype=np.bool_),
        steps=np.zeros(count, dtype=np.int64),
        trail=trail,
        paid=np.zeros(count),
        gold=np.zeros(count),
    )


def drive(hall: Hall, actions: NDArray[np.float32], draws: Draws) -> Events:
    """Let people walk and the robot drive for a step; changes `hall` in place.

    Args:
        hall: n rows.
        actions: throttle and steering, shape (n, 2), from -1 to 1.
        draws: for the same rows.
    """
    controls = actions.astype(np.float64)
    controls[hall.arrived] = 0.0  # parked: what it is told changes nothing
    jerk = np.square(controls - hall.controls).sum(axis=-1) * ~hall.arrived
    halted = _walk(hall, draws)

    before = distance(hall.robot, hall.goal)
    hall.heading = wrapped(hall.heading + TURNING * STEP_SECONDS * controls[:, 1])
    faster = hall.speed + ACCELERATION * STEP_SECONDS * controls[:, 0]
    hall.speed = np.where(hall.arrived, 0.0, np.clip(faster, 0.0, TOP_SPEED))
    driven = hall.speed * STEP_SECONDS
    hall.robot = hall.robot + driven[:, None] * direction(hall.heading)
    bumped = _collide(hall)

    left = distance(hall.robot, hall.goal)
    arrived = (left < GOAL_RADIUS) & ~hall.arrived
    hall.arrived = hall.arrived | arrived
    gap_to_vase = distance(hall.robot, hall.things[:, VASE]) - VASE_RADIUS - ROBOT_RADIUS
    vase_fell = (gap_to_vase < 0) & hall.vase_stands
    hall.vase_stands = hall.vase_stands & ~vase_fell
    wet = (distance(hall.robot[:, None], hall.things[:, PUDDLES]) < PUDDLE_RADIUS).any(axis=-1)
    hall.controls = controls
    hall.steps += 1
    hall.trail[np.arange(len(hall.steps)), hall.steps] = hall.robot
    return Events(before - left, arrived, bumped, wet * driven, vase_fell, halted, jerk)


def closeness(hall: Hall) -> FloatArray:
    """How much the robot is in each person's space, from 0 (1 m away) to 1; shape (n, 3).

    Counted double where the person is looking.
    """
    towards = hall.robot[:, None] - hall.people
    apart = np.sqrt(np.square(towards).sum(axis=-1))
    gap = np.maximum(apart - PERSON_RADIUS - ROBOT_RADIUS, 0.0)
    near = np.square(np.maximum(1.0 - gap, 0.0))
    ahead = (towards * hall.velocities).sum(axis=-1) > 0.5 * apart * WALKING_SPEED
    return np.asarray(near * (1.0 + ahead))


def distance(one: FloatArray, other: FloatArray) -> FloatArray:
    """Between points, over the last axis."""
    return np.asarray(np.sqrt(np.square(one - other).sum(axis=-1)))


def direction(angle: FloatArray) -> FloatArray:
    """Unit vectors, shape (..., 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def wrapped(angle: FloatArray) -> FloatArray:
    """The same angle from -pi to pi."""
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


def _walk(hall: Hall, draws: Draws) -> FloatArray:
    """People go their ways, and stop for a robot in front of them; how many did, shape (n,)."""
    rest = hall.errands - hall.people
    left = np.sqrt(np.square(rest).sum(axis=-1))
    ways = rest / np.maximum(left, 1e-6)[..., None]
    towards = hall.robot[:, None] - hall.people
    apart = np.sqrt(np.square(towards).sum(axis=-1))
    blocked = (apart < PATIENCE) & ((towards * ways).sum(axis=-1) > 0.5 * apart)
    hall.velocities = np.where(blocked[..., None], 0.0, WALKING_SPEED * ways)
    hall.people = _around_pillars(hall, hall.people + STEP_SECONDS * hall.velocities)
    # Drawn in every step, needed in few: each row must draw alike, whatever the others do.
    elsewhere = draws.uniform(0.5, SIDE - 0.5, (PEOPLE, 2))
    there = left < PILLAR_RADIUS + PERSON_RADIUS + 0.1  # an errand may lie inside a pillar
    hall.errands = np.where(there[..., None], elsewhere, hall.errands)
    return np.asarray((blocked & ~hall.arrived[:, None]).sum(axis=-1), dtype=np.float64)


def _around_pillars(hall: Hall, people: FloatArray) -> FloatArray:
    """Where people are who do not walk through pillars, shape (n, 3, 2)."""
    away = people[:, :, None] - hall.things[:, None, PILLARS]
    apart = np.maximum(np.sqrt(np.square(away).sum(axis=-1)), 1e-6)
    overlap = np.maximum(PILLAR_RADIUS + PERSON_RADIUS - apart, 0.0)
    pushed: FloatArray = np.moveaxis(away * (overlap / apart)[..., None], 2, 3).sum(axis=-1)
    return people + pushed


def _collide(hall: Hall) -> BoolArray:
    """Push the robot out of what is solid; it stands still then. Which rows, shape (n,)."""
    solid = np.concatenate([hall.things[:, PILLARS], hall.people], axis=1)
    away = hall.robot[:, None] - solid
    apart = np.maximum(np.sqrt(np.square(away).sum(axis=-1)), 1e-6)
    overlap = np.maximum(_SOLID_RADII + ROBOT_RADIUS - apart, 0.0)
    pushed = hall.robot + np.moveaxis(away * (overlap / apart)[..., None], 1, 2).sum(axis=-1)
    inside = np.clip(pushed, ROBOT_RADIUS, SIDE - ROBOT_RADIUS)
    bumped = (inside != hall.robot).any(axis=-1) & ~hall.arrived
    hall.robot = np.where(bumped[:, None], inside, hall.robot)
    hall.speed = np.where(bumped, 0.0, hall.speed)
    return np.asarray(bumped)


_SOLID_RADII = np.array([PILLAR_RADIUS] * 3 + [PERSON_RADIUS] * PEOPLE)
