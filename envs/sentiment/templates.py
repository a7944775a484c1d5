"""Sentence patterns of the review language.

In a template, `{adj}` is filled with a word of the sentence's own polarity and `{adj~}` with one of
the opposite; verbs agree with the number drawn for their clause unless a form is forced: `.s`
singular, `.p` plural, `.i` first person, `.b` base.
"""

from __future__ import annotations

import re

Weighted = tuple[tuple[int, str], ...]
"""(weight, template) pairs."""

CLAUSES: Weighted = (
    (12, "the {aspect} {be} {adj}"),
    (12, "the {aspect} {be} {degree} {adj}"),
    (8, "the {aspect} {be} {adj} and {adj}"),
    (8, "the {aspect} {link} {adj}"),
    (4, "the {aspect} of this {film} {be} {adj}"),
    (4, "the {aspect.s} and the {aspect.p} {be.p} {adj}"),
    (6, "the {aspect} {be} {negator} {adj~}"),
    (2, "the {aspect} {be} not {much} {adj~}"),
    (2, "neither the {aspect.s} nor the {aspect} {be} {adj~}"),
    (2, "there {be.s} nothing {adj~} about the {aspect}"),
    (3, "the {aspect} {be} not only {adj} but also {adj}"),
    (9, "the {aspect} {shine}"),
    (2, "the {aspect} never {shine~}"),
    (3, "the {aspect} {do} not {shine.b~}"),
    (9, "the {aspect} {move} me"),
    (2, "the {aspect} {do} not {move.b~} me"),
    (9, "i {love.i} the {aspect}"),
    (2, "i {do.i} not {love.b~} the {aspect}"),
    (2, "i never {love.i~} the {aspect}"),
    (8, "it {be.s} a {adj} {film}"),
    (3, "it {be.s} {negator} a {adj~} {film}"),
    (8, "the {film} {be.s} a {gem}"),
    (2, "the {film} {be.s} not a {gem~}"),
    (6, "the {aspect} {be} {better} than {rival}"),
    (2, "the {aspect} {be} not {better~} than {rival}"),
    (4, "it {be.s} more {longadj} than {rival}"),
    (3, "it {be.s} less {longadj~} than {rival}"),
)
# What others are said to think is about the film, not about "me".
VIEWS: Weighted = tuple((n, text) for n, text in CLAUSES if not re.search(r"\b(i|me)\b", text))

SENTENCES: Weighted = (
    (12, "{clause}."),
    (8, "{clause} and {clause}."),
    (5, "{clause~}, but {clause}."),
    (3, "although {clause~}, {clause}."),
    (2, "{clause} because {clause}."),
    (3, "{starter}, {clause}."),
    (2, "{critics} said that {view}, and i agree."),
    (1, "{critics} said that {view~}, but i disagree."),
    (2, "i expected a {adj~} {film}, but {clause}."),
    (3, "what a {adj} {film}!"),
)

GOOD_CLOSINGS = (
    "i recommend it to {audience}.",
    "i want to see it again.",
    "i would gladly watch it again.",
    "it is worth the money.",
)
BAD_CLOSINGS = (
    "i do not recommend it to {audience}.",
    "i never want to see it again.",
    "i would rather read a book.",
    "it is not worth the money.",
)

OPENINGS: Weighted = (
    (5, "i watched this {film} {occasion}."),
    (4, "i saw this {kind} {film} with {companion}."),
    (4, "we went to see this {kind} {film} {occasion}."),
    (3, "{companion} and i watched this {film} {occasion}."),
    (3, "this {kind} {film} is about a {herokind} {hero}."),
    (4, "in this {film}, a {herokind} {hero} {quest}."),
    (3, "a {hero} {quest} in {place}."),
    (3, "this {film} is set in {place}."),
    (2, "the {kind} {film} runs for {minutes}."),
    (3, "it is the story of a {hero} and a {hero} in {place}."),
)
