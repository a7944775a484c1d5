"""The task of the iteration benchmark: fresh networks and prompts, saved for both sides.

A fresh model says nothing about lengths, so the stop token's probability is built in: the final
norm's bias points along one hidden direction, in which only PAD and EOS have a component. Their
logits are then constants, whatever the context: PAD is never drawn, and EOS with the probability
that gives the wanted mean length. Everything else stays as a fresh GPT-2 has it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from rlhf_gym.pipelines.bench_sizes import BenchTask as BenchTask

PAD_ID, EOS_ID = 0, 1
# Length of the final norm's bias along the direction that PAD and EOS share. Against it the hidden
# state's own component, which moves in training, counts for nothing.
POINTER = 100.0


@dataclass(frozen=True)
class BenchModels:
    """Fresh networks and prompts of one task.

    Attributes:
        policy: the language model; the reference is a copy of it.
        reward, value: sequence classifiers of the same size with one output.
        tokenizer: of all three.
        prompt_ids: prompts as ids, of different lengths.
        prompts: the same as text.
    """

    policy: GPT2LMHeadModel
    reward: GPT2ForSequenceClassification
    value: GPT2ForSequenceClassification
    tokenizer: PreTrainedTokenizerFast
    prompt_ids: list[list[int]]
    prompts: list[str]


def build_models(task: BenchTask) -> BenchModels:
    """Networks and prompts; the same task gives the same ones."""
    generator = torch.Generator().manual_seed(task.seed)
    tokenizer = build_tokenizer(task.vocab_size)
    policy = build_policy(task, generator)
    # As large as a reward head starts, and as small as a value head does.
    reward = _build_critic(task, policy, (task.hidden + 1) ** -0.5, generator)
    value = _build_critic(task, policy, 0.0, generator)
    prompt_ids = draw_prompts(task, generator)
    prompts = [str(tokenizer.decode(ids)) for ids in prompt_ids]
    return BenchModels(policy, reward, value, tokenizer, prompt_ids, prompts)


def save_task(task: BenchTask, folder: Path) -> None:
    """Write policy, reward and value networks, tokenizer, prompts and settings.

    Args:
        task: the sizes.
        folder: receives `policy/`, `reward/`, `value/` (Hugging Face directories) and
            `settings.json` with the prompts as ids and as text.
    """
    models = build_models(task)
    for name in ("policy", "reward", "value"):
        getattr(models, name).save_pretrained(folder / name)
        models.tokenizer.save_pretrained(folder / name)
    settings = {
        **asdict(task),
        "stops": task.stops,
        "prompt_ids": models.prompt_ids,
        "prompts": models.prompts,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def build_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A word tokenizer of `<pad>`, `<eos>` and made-up words w2, w3, ..."""
    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(2, vocab_size))]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="w2"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


def build_policy(task: BenchTask, generator: torch.Generator) -> GPT2LMHeadModel:
    """A fresh GPT-2 that never says PAD, and EOS with the task's probability."""
    policy = GPT2LMHeadModel(_config(task))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "ln_" in name and "weight" in name else 0.0)
        embedding = policy.transformer.wte.weight
        policy.transformer.ln_f.bias[0] = POINTER
        embedding[:, 0] = 0.0
        embedding[[PAD_ID, EOS_ID]] = 0.0
        # logit = POINTER * embedding[0] + hidden[0] * embedding[0]; the second part is small noise
        embedding[PAD_ID, 0] = -40.0 / POINTER
        embedding[EOS_ID, 0] = _stop_logit(task, embedding[2:]) / POINTER
    return policy


def draw_prompts(task: BenchTask, generator: torch.Generator) -> list[list[int]]:
    """Random words; lengths spread evenly between half and all of `prompt_tokens`."""
    shortest = max(1, task.prompt_tokens // 2)
    lengths = torch.linspace(shortest, task.prompt_tokens, task.responses).round().int()
    return [
        torch.randint(2, task.vocab_size, (int(n),), generator=generator).tolist() for n in lengths
    ]


def _stop_logit(task: BenchTask, words: torch.Tensor) -> float:
    """Logit at which EOS has the task's probability beside the fresh words' logits."""
    if not task.stops:
        return -40.0
    # Words' logits are normal with variance |normalised hidden|^2 * var(words) = hidden * var.
    spread = task.hidden * float(words[:, 1:].var())
    log_others = torch.log(torch.tensor(float(len(words)))) + spread / 2
    odds = task.stop_probability / (1 - task.stop_probability)
    return float(log_others + torch.log(torch.tensor(odds)))


def _build_critic(
    task: BenchTask, policy: GPT2LMHeadModel, head_std: float, generator: torch.Generator
) -> GPT2ForSequenceClassification:
    config = _config(task)
    config.num_labels = 1
    critic = GPT2ForSequenceClassification(config)
    critic.transformer.load_state_dict(policy.transformer.state_dict())
    nn.init.normal_(critic.score.weight, std=head_std, generator=generator)
    return critic


def _config(task: BenchTask) -> GPT2Config:
    return GPT2Config(
        vocab_size=task.vocab_size,
        n_positions=task.prompt_tokens + task.response_tokens,
        n_embd=task.hidden,
        n_layer=task.layers,
        n_head=task.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=PAD_ID,
        bos_token_id=EOS_ID,
        eos_token_id=EOS_ID,
    )
