"""Episodes written out by hand: one word is one token."""

import pytest
import torch

from rlhf_gym.core.episodes import Episodes
from rlhf_gym.core.tokens import TokenRules

PAD, STOP = 0, 1


class WordTokenizer:
    """Numbers words as they come up, from 2; knows PAD and one stop token."""

    def __init__(self):
        self.words = ["<pad>", "<stop>"]

    def encode(self, text):
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def __call__(self, texts, **options):
        ids = [self.encode(text) for text in texts] if isinstance(texts, list) else None
        return {"input_ids": self.encode(texts) if ids is None else ids}

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join(self.words[i] for i in row if i not in (PAD, STOP)) for row in rows]


@pytest.fixture
def write():
    """Makes episodes of responses such as "so it is <stop>"; without <stop> the budget ended it."""

    def make(*responses, prompts=None, rows=(), budget=None):
        prompts = ["tell me"] * len(responses) if prompts is None else list(prompts)
        tokenizer = WordTokenizer()
        before = [tokenizer.encode(prompt) for prompt in prompts]
        after = [tokenizer.encode(response) for response in responses]
        width = max(map(len, before))
        time = budget or max(map(len, after))
        ids = torch.tensor(
            [
                [PAD] * (width - len(p)) + p + r + [PAD] * (time - len(r))
                for p, r in zip(before, after, strict=True)
            ]
        )
        return Episodes(
            input_ids=ids,
            attention_mask=ids != PAD,
            prompt_width=width,
            stopped=torch.tensor([STOP in r for r in after]),
            rules=TokenRules(vocab_size=len(tokenizer.words), pad_id=PAD, stop_ids=(STOP,)),
            tokenizer=tokenizer,
            prompts=prompts,
            rows=rows,
        )

    return make
