"""What people say at the page reaches what is trained: browser, store, export, training, scores."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from rlhf_gym.cli import main
from rlhf_gym.core.data import read_records
from rlhf_gym.core.feedback import Query, TextSegment
from rlhf_gym.core.models import load_causal_lm, load_reward_model, load_tokenizer
from rlhf_gym.core.supervised.preference_data import encode_prompts, encode_responses
from rlhf_gym.core.supervised.reward_evaluation import score_sequences
from rlhf_gym.core.supervised.reward_model import RewardModelConfig, train_reward_model
from rlhf_gym.core.supervised.sft import SFTConfig, sft
from rlhf_gym.envs.sentiment.task import REFERENCE


class Taught(NamedTuple):
    """A kind of label, and what it shall teach.

    Each is about a subject and two opinions of its own, and half of them prefer the blame: what
    the reward model thinks of them in the end it can know from these labels alone.

    Attributes:
        subject: of the prompt.
        better: completion that the rater likes.
        worse: completion that the rater does not like.
        queries: what is asked.
        answer: to the query that shows these texts, in the order of the screen.
    """

    subject: str
    better: str
    worse: str
    queries: Callable[["Taught"], list[Query]]
    answer: Callable[[Any, "Taught", list[str]], None]


def together(*questions, more=(), **settings):
    """One query about both texts, and perhaps more."""
    return lambda taught: [
        Query(texts(taught, taught.better, taught.worse, *more), *questions, **settings)
    ]


def each(question, **settings):
    """One query about each text."""
    return lambda taught: [
        Query(texts(taught, text), question, **settings) for text in (taught.better, taught.worse)
    ]


def texts(taught, *completions):
    prompt = f"this film is about a lonely sailor. the {taught.subject} is"
    return tuple(TextSegment(prompt, f" {completion}.") for completion in completions)


def place(shown, text):
    return [card.strip(" .") for card in shown].index(text)


def best_first(rater, taught, shown):
    wanted = sorted(shown, key=lambda card: (taught.worse in card, taught.better not in card))
    rater.press(*(str(shown.index(card) + 1) for card in wanted), "Enter")


def verdict(good, bad):
    """Keys for what is liked, and for what is not."""
    return lambda rater, taught, shown: rater.press(*(good if taught.better in shown[0] else bad))


def rewrite(rater, taught, shown):
    rater.press("Control+a")
    rater.page.keyboard.type(f" {taught.better}.")
    rater.press("Control+Enter")


def better_one(rater, taught, shown):
    rater.press(str(place(shown, taught.better) + 1))


KINDS = {
    "comparison": Taught("plot", "clever", "dull", together(), better_one),
    "ranking": Taught("cast", "weak", "superb", together(more=("fine",)), best_first),
    "best": Taught("music", "touching", "stale", together("best", more=("bland",)), better_one),
    "thumb": Taught(
        "script", "clumsy", "witty", each("thumb"), verdict(["ArrowUp"], ["ArrowDown"])
    ),
    "likert": Taught("story", "moving", "silly", each("likert", levels=5), verdict("5", "1")),
    "rating": Taught(
        "ending", "poor", "great", each("rating"), verdict(["9", "Enter"], ["1", "Enter"])
    ),
    "edit": Taught(
        "pacing",
        "gripping",
        "tedious",
        lambda taught: [Query(texts(taught, taught.worse), "edit")],
        rewrite,
    ),
}


@pytest.fixture
def answered(store, serve, sit):
    """A store in which somebody has answered everything in a browser, with nothing but keys."""
    asked = [(taught, query) for taught in KINDS.values() for query in taught.queries(taught)]
    ids = store.add([query for _, query in asked])
    with serve() as address:
        rater = sit(address)
        for number, (taught, _) in zip(ids, asked, strict=True):
            rater.sees(number)
            shown = rater.page.locator(".prose.answer").all_text_contents()
            taught.answer(rater, taught, shown)
        rater.sees("empty")
        assert rater.errors == []
    return store


def test_every_kind_of_label_teaches_a_reward_model(answered, tmp_path):
    exported = tmp_path / "labels.jsonl"
    main(["feedback", "export", str(exported), "--store", str(answered.path)])
    trained = train_reward_model(
        RewardModelConfig(
            data=(str(exported),),
            model=str(REFERENCE),
            output=str(tmp_path / "rm"),
            validation=0.0,
            held_out=0.0,
            epochs=30,
            batch_size=16,
            learning_rate=2e-3,
            progress=False,
            device="cpu",
        )
    )
    # A comparison, a ranking, best of three, two thumbs, two levels, two ratings, an edit.
    assert trained.train_judgements == 1 + 1 + 2 + 2 + 2 + 2 + 1
    model, tokenizer = load_reward_model(trained.output), load_tokenizer(trained.output)
    model.eval()
    for kind, taught in KINDS.items():
        pair = texts(taught, taught.better, taught.worse)
        starts = encode_prompts([one.prompt for one in pair], tokenizer)
        ends = encode_responses([one.completion for one in pair], tokenizer)
        sequences = [[*start, *end] for start, end in zip(starts, ends, strict=True)]
        better, worse = score_sequences(model, sequences, tokenizer.pad_token_id).tolist()
        assert better > worse + 0.3, kind


def test_demonstrations_teach_a_policy(store, serve, sit, tmp_path):
    prompt = "this film is about a lonely sailor. the plot"
    written, edited, accepted = " is moving.", " is great.", " is fine."
    store.add(
        [
            Query((TextSegment(prompt, ""),), "demonstration"),
            Query((TextSegment(prompt, " is great , great."),), "edit"),
            Query((TextSegment(prompt, accepted),), "review"),
            Query((TextSegment(prompt, " is awful."),), "review"),
        ]
    )
    with serve() as address:
        rater = sit(address)
        rater.sees(1)
        rater.page.keyboard.type(written)
        rater.press("Control+Enter")
        rater.sees(2)
        rater.press("Control+a")
        rater.page.keyboard.type(edited)
        rater.press("Control+Enter")
        rater.sees(3)
        rater.press("a")
        rater.sees(4)
        rater.press("x", "Enter")  # flagged as toxic: not to be learned from
        rater.sees("empty")
    exported = tmp_path / "demonstrations.jsonl"
    kind = ["--kind", "demonstrations"]
    main(["feedback", "export", str(exported), "--store", str(store.path), *kind])
    assert [row["completion"] for row in read_records(exported)] == [written, edited, accepted]
    trained = sft(
        SFTConfig(
            model=str(REFERENCE),
            data=(str(exported),),
            output=str(tmp_path / "sft"),
            held_out=0.0,
            epochs=20,
            learning_rate=2e-3,
            progress=False,
            device="cpu",
        )
    )
    assert trained.examples == 3
    eased = {
        text: nats(REFERENCE, prompt, text) - nats(trained.output, prompt, text)
        for text in (written, edited, accepted, " is awful.")
    }
    # All four are short; three of them were shown.
    assert min(eased[text] for text in (written, edited, accepted)) > eased[" is awful."] + 1.0


def nats(folder, prompt, completion):
    """Nats of a completion after its prompt."""
    model, tokenizer = load_causal_lm(folder), load_tokenizer(folder)
    model.eval()
    (start,) = encode_prompts([prompt], tokenizer)
    (ended,) = encode_responses([completion], tokenizer)
    ids = torch.tensor([[*start, *ended]])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return -float(log_probs.gather(-1, ids[0, 1:, None])[len(start) - 1 :].sum())
