"""The words of the review language: what the generator writes with and the oracle reads by.

An opinion word stands in one list only and no neutral entry contains one, so that what a word says
never depends on which list it was drawn from. Inflected words hold their forms side by side, with
slashes.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """The forms of a verb: base ("love"), third person ("loves") and past ("loved")."""

    base: str
    third: str
    past: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _verbs(text: str) -> tuple[Verb, ...]:
    return tuple(Verb(*entry.split("/")) for entry in _words(text))


def _graded(*grades: tuple[float, str]) -> dict[str, float]:
    return {word: value for value, words in grades for word in _words(words)}


# Adjectives and how much they say, in [-1, 1].
GOOD_ADJECTIVES = _graded(
    (0.5, "good, fine, fresh, warm, funny, smart, enjoyable"),
    (0.7, "clever, charming, witty, elegant, touching, memorable, beautiful, moving, gripping"),
    (0.9, "great, wonderful, powerful, delightful, excellent"),
    (1.0, "brilliant, superb, stunning, perfect"),
)
BAD_ADJECTIVES = _graded(
    (-0.5, "bad, weak, flat, silly, stale, bland, cheap, poor"),
    (-0.7, "dull, boring, clumsy, predictable, shallow, messy, tedious, forgettable, confusing"),
    (-0.9, "pointless, painful, ridiculous, tiresome"),
    (-1.0, "awful, terrible, dreadful, horrible"),
)
COMPARATIVES = {"better": 0.6, "funnier": 0.6, "richer": 0.6} | {
    "worse": -0.6,
    "weaker": -0.6,
    "duller": -0.6,
}

# "a triumph", "a mess"
GOOD_NOUNS = _graded((0.7, "delight, success"), (1.0, "masterpiece, triumph"))
BAD_NOUNS = _graded((-0.7, "mess, disappointment"), (-1.0, "disaster, failure"))

# "the ending shines", "the jokes fail"
GOOD_INTRANSITIVES = _verbs(
    "work/works/worked, shine/shines/shone, sparkle/sparkles/sparkled, succeed/succeeds/succeeded"
)
BAD_INTRANSITIVES = _verbs(
    "fail/fails/failed, drag/drags/dragged, stumble/stumbles/stumbled, collapse/collapses/collapsed"
)
# "the score moved me", "the pacing bored me"
GOOD_AFFECTS = _verbs(
    "move/moves/moved, charm/charms/charmed, impress/impresses/impressed, amuse/amuses/amused"
)
BAD_AFFECTS = _verbs(
    "bore/bores/bored, annoy/annoys/annoyed, confuse/confuses/confused, tire/tires/tired"
)
# "i loved the songs", "i hated the dialogue"
GOOD_ATTITUDES = _verbs(
    "love/loves/loved, like/likes/liked, enjoy/enjoys/enjoyed, admire/admires/admired"
)
BAD_ATTITUDES = _verbs(
    "hate/hates/hated, dislike/dislikes/disliked, resent/resents/resented, "
    "despise/despises/despised"
)
MILD_VERBS = frozenset({"work", "like", "amuse", "dislike", "tire"})

LINKING_VERBS = _verbs(
    "feel/feels/felt, seem/seems/seemed, look/looks/looked, remain/remains/remained, "
    "become/becomes/became"
)

# How much a degree word scales the opinion that follows it, and a negator after turning it round.
DEGREES = {
    "very": 1.2,
    "really": 1.2,
    "truly": 1.2,
    "deeply": 1.3,
    "extremely": 1.4,
    "utterly": 1.4,
    "remarkably": 1.3,
    "so": 1.2,
    "quite": 0.8,
    "rather": 0.8,
    "fairly": 0.7,
    "somewhat": 0.5,
    "slightly": 0.4,
    "often": 0.8,
    "sometimes": 0.5,
    "always": 1.2,
    "almost": 0.7,
}
NEGATORS = {
    "not": 0.6,
    "never": 0.8,
    "hardly": 0.5,
    "barely": 0.5,
    "rarely": 0.5,
    "no": 0.6,
    "nothing": 0.8,
    "nobody": 0.6,
    "neither": 0.6,
    "nor": 0.6,
    "without": 0.6,
    "cannot": 0.6,
}

ASPECTS = _words(
    "plot, story, acting, score, ending, script, dialogue, camerawork, direction, pacing, music, "
    "humor, editing, cast, opening, finale, soundtrack, lighting, premise, mood, atmosphere, "
    "villain, "
    "hero, narrator, tone, message, rhythm, setting, photography, style"
)
PLURAL_ASPECTS = _words(
    "characters, jokes, scenes, performances, effects, songs, costumes, visuals, actors, twists, "
    "lines, stunts, landscapes, dialogues, colors, flashbacks, dances, sets, chases, conversations"
)
FILMS = _words(
    "film, movie, picture, comedy, drama, thriller, western, romance, documentary, mystery, "
    "musical, "
    "sequel, remake, fantasy, adventure, biography, satire, production"
)
FILM_KINDS = _words(
    "new, old, short, long, silent, french, italian, animated, famous, recent, historical, "
    "independent, swedish, modern, classic, foreign"
)
HEROES = _words(
    "teacher, doctor, sailor, detective, painter, farmer, soldier, singer, thief, queen, nurse, "
    "writer, pilot, dancer, widow, orphan, lawyer, baker, spy, clown, gardener, boxer, priest, "
    "student"
)
HERO_KINDS = _words(
    "young, lonely, retired, stubborn, shy, hungry, nervous, blind, proud, homeless"
)
PLACES = _words(
    "paris, london, a village, a harbor town, the desert, the mountains, a big city, a lighthouse, "
    "a castle, the north, a hospital, a circus, a hotel, a valley, an old prison, a school"
)
QUESTS = _words(
    "loses everything, wins a race, returns home, finds a letter, hides a secret, searches for a "
    "brother, buys a farm, solves a murder, crosses the border, meets a stranger, "
    "inherits a house, "
    "learns to swim, leaves the family, builds a boat, writes a book, joins a band"
)
COMPANIONS = _words(
    "my brother, my sister, my mother, my father, my friends, my wife, my husband, my daughter, "
    "my neighbor, my son, an old friend, two colleagues"
)
OCCASIONS = _words(
    "last night, last week, yesterday, on sunday, on friday, this morning, at home, on television, "
    "at a festival, in a small cinema, on a long flight, on a rainy evening, during the holidays, "
    "in an empty theater, after dinner, in the afternoon"
)
CRITICS = _words(
    "critics, my friends, my parents, the newspapers, most people, my colleagues, some viewers, "
    "the reviews, several fans"
)
AUDIENCES = _words(
    "anyone, everyone, children, families, my friends, my students, fans of the book, young people"
)
RIVALS = _words(
    "the book, the original, the trailer, the first part, the novel, most sequels, the television "
    "series, the last one, the poster, other films of this kind"
)
STARTERS = _words(
    "to be honest, in the end, in my opinion, after the first hour, from start to finish, on the "
    "whole, for me, after all, this time, at first, by the end, all in all"
)
# Phrases that tell a verdict as one verb would: "i would gladly watch it again".
PHRASES = {
    ("see", "it", "again"): 0.7,
    ("watch", "it", "again"): 0.7,
    ("worth", "the", "money"): 0.7,
    ("would", "rather"): -0.7,
    ("recommend", "it"): 0.7,
}
RUNNING_TIMES = _words("ninety minutes, two hours, almost three hours, one hour, eighty minutes")

ADJECTIVES: dict[str, float] = GOOD_ADJECTIVES | BAD_ADJECTIVES | COMPARATIVES
OPINION_NOUNS: dict[str, float] = GOOD_NOUNS | BAD_NOUNS


def _verb_values() -> dict[str, float]:
    values: dict[str, float] = {}
    for sign, groups in (
        (1.0, (GOOD_INTRANSITIVES, GOOD_AFFECTS, GOOD_ATTITUDES)),
        (-1.0, (BAD_INTRANSITIVES, BAD_AFFECTS, BAD_ATTITUDES)),
    ):
        for verb in (verb for group in groups for verb in group):
            strength = 0.5 if verb.base in MILD_VERBS else 0.8
            values |= dict.fromkeys(verb, sign * strength)
    return values


OPINION_VERBS: dict[str, float] = _verb_values()
"""Value of every form of every opinion verb."""
