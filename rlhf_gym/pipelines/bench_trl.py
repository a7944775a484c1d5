"""TRL's PPO trainer as a worker that runs one iteration whenever it is told to.

It runs in an environment of its own (`make bench-trl`) and imports nothing of this library: it
loads the networks that `bench_iteration` saved, waits for a line on standard input, runs one
iteration and answers with one line of JSON. So TRL's iterations and ours alternate in one run.

    .bench-trl/bin/python rlhf_gym/pipelines/bench_trl.py FOLDER

What was chosen: float32, dropout off (TRL does that itself), no gradient checkpointing, nothing
logged or saved, and `per_device_train_batch_size` equal to the whole batch, since a smaller one
with accumulation makes TRL step the optimiser once per batch instead of once per minibatch.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

THREADS = "1"
os.environ.update(OMP_NUM_THREADS=THREADS, HF_HUB_OFFLINE="1")


class IterationGate:
    """A data loader that hands out each batch only when told to, and times what follows.

    TRL's loop fetches a batch at the start of an iteration and never leaves in between, so from
    one fetch to the next is exactly one iteration, its logging and garbage collection included.

    Args:
        loader: the trainer's own data loader.
        commands: one line starts one iteration; its end stops the worker.
        answer: receives the measurements of each iteration.
    """

    def __init__(
        self, loader: Any, commands: TextIO, answer: Callable[[dict[str, float]], None]
    ) -> None:
        self.loader = loader
        self.commands = commands
        self.answer = answer
        self.marks: dict[str, float] = {}

    def __iter__(self) -> Iterator[Any]:
        while True:
            for _ in self.commands:
                reset_peak()
                started, cpu_started = time.perf_counter(), time.process_time()
                self.marks = {}
                yield next(iter(self.loader))
                self.answer(self.measurements(started, cpu_started))
            raise SystemExit(0)

    def mark(self, name: str) -> None:
        """Remember the first time that `name` happens in this iteration."""
        self.marks.setdefault(name, time.perf_counter())

    def measurements(self, started: float, cpu_started: float) -> dict[str, float]:
        """Seconds of the whole iteration and of its parts, and peak memory in MiB."""
        now = time.perf_counter()
        return {
            "seconds": now - started,
            "cpu_seconds": time.process_time() - cpu_started,
            "sampling": self.marks["sampled"] - started,
            "scoring": self.marks["update"] - self.marks["sampled"],
            "update": now - self.marks["update"],
            "tokens": self.marks["tokens"],
            "peak_mib": memory_mib("VmHWM"),
        }


def reset_peak() -> None:
    """Let `VmHWM` start again from what is used now; nothing where there is no /proc."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def memory_mib(field: str) -> float:
    """This process's `VmRSS` (now) or `VmHWM` (peak) in MiB; NaN where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    return int(found[1]) / 1024 if found else float("nan")


def build_trainer(folder: Path, settings: dict[str, Any]) -> Any:
    """TRL's `PPOTrainer` on the saved networks, with the settings both sides share."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    torch.set_num_threads(int(THREADS))
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    batch = settings["responses"]
    config = PPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=settings["minibatches"],
        num_ppo_epochs=settings["epochs"],
        local_rollout_forward_batch_size=batch,
        # The linear schedule must not reach 0 while we measure.
        total_episodes=batch * 1000,
        response_length=settings["response_tokens"],
        stop_token="eos" if settings["stops"] else None,
        temperature=1.0,
        learning_rate=settings["learning_rate"],
        kl_coef=settings["kl_coef"],
        num_sample_generations=0,
        seed=settings["seed"],
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
    )
    classifier = AutoModelForSequenceClassification
    trainer = PPOTrainer(
        args=config,
        processing_class=tokenizer,
        model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_model=classifier.from_pretrained(folder / "reward"),
        value_model=classifier.from_pretrained(folder / "value"),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in settings["prompt_ids"]]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def mark_parts(trainer: Any, gate: IterationGate) -> None:
    """Let the gate know when sampling ended and when the first minibatch began."""
    policy = trainer.model.policy
    generate = policy.generate
    pad = trainer.processing_class.pad_token_id

    def timed_generate(*args: Any, **kwargs: Any) -> Any:
        output = generate(*args, **kwargs)
        gate.mark("sampled")
        responses = output.sequences[:, kwargs["input_ids"].shape[1] :]
        gate.marks["tokens"] = int((responses != pad).sum())
        return output

    policy.generate = timed_generate
    # The rollout calls policy and value model by themselves; only the update calls the pair.
    trainer.model.register_forward_pre_hook(lambda *_: gate.mark("update"))


def main(folder: Path) -> None:
    """Serve iterations until standard input ends."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    # The real standard output is for answers alone; whatever the libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(message: dict[str, float]) -> None:
        answers.write(json.dumps(message) + "\n")

    settings = json.loads((folder / "settings.json").read_text())
    trainer = build_trainer(folder, settings)
    gate = IterationGate(trainer.dataloader, sys.stdin, answer)
    trainer.dataloader = gate
    mark_parts(trainer, gate)
    answer({"ready_mib": memory_mib("VmRSS")})
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
