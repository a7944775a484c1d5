"""TRL's PPO trainer as a worker that runs one iteration whenever it is told to.

It runs in an environment of its own (`make bench-trl`) and imports nothing of this library: it
loads the networks that `bench_task` saved, waits for a line on standard input, runs one iteration
and answers with one line of JSON. So TRL's iterations and ours alternate in one run.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class IterationClock:
    """Starts an iteration when a line comes in, and answers with what it cost when it ends.

    Seconds are of CPU time: with one thread that is the time on the wall of an idle machine, and a
    busy one does not disturb it. Work on a GPU is waited for, and its seconds are the wall's.

    Args:
        commands: one line starts one iteration; their end ends the process.
        answers: receives one line of JSON first, when everything is loaded, then one per iteration.
        on_gpu: the work is done there, and memory is that of the GPU.

    Attributes:
        tokens: response tokens of this iteration, set by whoever counts them.
    """

    def __init__(self, commands: TextIO, answers: TextIO, on_gpu: bool = False) -> None:
        self.tokens = 0
        self._on_gpu = on_gpu
        self._commands = commands
        self._answers = answers
        self._started: float | None = None
        self._wall_started = 0.0
        self._update: float | None = None

    def next_iteration(self) -> None:
        """End the iteration that runs, if any, and wait until the next one is wanted."""
        if self._started is None:
            self._answer({"loaded_mib": self._memory("VmRSS")})
        else:
            self._answer(self._measurements(self._started))
        if not self._commands.readline():
            raise SystemExit(0)
        reset_peak()
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._update = None
        self._wall_started, self._started = time.perf_counter(), self._now()

    def mark_update(self) -> None:
        """The rollout is over; only the first call of an iteration counts."""
        if self._update is None:
            self._update = self._now()

    def _measurements(self, started: float) -> dict[str, float]:
        now = self._now()
        update = now if self._update is None else self._update
        return {
            "seconds": now - started,
            "wall": time.perf_counter() - self._wall_started,
            "rollout": update - started,
            "update": now - update,
            "tokens": self.tokens,
            "peak_mib": self._memory("VmHWM"),
        }

    def _now(self) -> float:
        if not self._on_gpu:
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    def _memory(self, field: str) -> float:
        """Resident (`VmRSS`) or most (`VmHWM`) memory in MiB, of the process or on the GPU."""
        if not self._on_gpu:
            return memory_mib(field)
        import torch

        read = torch.cuda.memory_allocated if field == "VmRSS" else torch.cuda.max_memory_allocated
        return read() / 2**20

    def _answer(self, message: dict[str, float]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()


class GatedLoader:
    """A data loader that hands out a batch when the clock says so.

    TRL's loop fetches a batch at the start of an iteration and never leaves in between, so from
    one fetch to the next is exactly one iteration, its logging and garbage collection included.
    """

    def __init__(self, loader: Any, clock: IterationClock) -> None:
        self._loader = loader
        self._clock = clock

    def __iter__(self) -> Iterator[Any]:
        while True:
            self._clock.next_iteration()
            yield next(iter(self._loader))


def memory_mib(field: str) -> float:
    """This process's `VmRSS` (now) or `VmHWM` (peak) in MiB; NaN where there is no /proc."""
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


def reset_peak() -> None:
    """Let `VmHWM` start again from what is used now; nothing where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def take_standard_streams() -> tuple[TextIO, TextIO]:
    """Commands and answers; whatever else the process prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return sys.stdin, answers


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
    from trl.experimental.ppo import (  # type: ignore[import-not-found]  # not installed here
        PPOConfig,
        PPOTrainer,
    )

    torch.set_num_threads(1)
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
        use_cpu=settings["device"] == "cpu",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
    )
    classifier = AutoModelForSequenceClassification
    trainer = PPOTrainer(
        args=config,
        processing_class=AutoTokenizer.from_pretrained(folder / "policy", padding_side="left"),
        model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(folder / "policy"),
        reward_model=classifier.from_pretrained(folder / "reward"),
        value_model=classifier.from_pretrained(folder / "value"),
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in settings["prompt_ids"]]),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def watch(trainer: Any, clock: IterationClock) -> None:
    """Let the clock start iterations, and see when the rollout ends and what it wrote."""
    trainer.dataloader = GatedLoader(trainer.dataloader, clock)
    policy, pad = trainer.model.policy, trainer.processing_class.pad_token_id
    generate = policy.generate

    def counting_generate(*args: Any, **kwargs: Any) -> Any:
        output = generate(*args, **kwargs)
        responses = output.sequences[:, kwargs["input_ids"].shape[1] :]
        clock.tokens = int((responses != pad).sum())
        return output

    policy.generate = counting_generate
    # The rollout calls policy and value model by themselves; only the update calls the pair.
    trainer.model.register_forward_pre_hook(lambda *_: clock.mark_update())


def main(folder: Path) -> None:
    """Serve iterations until standard input ends."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")  # before torch is imported
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    settings = json.loads((folder / "settings.json").read_text())
    clock = IterationClock(*take_standard_streams(), on_gpu=settings["device"] != "cpu")
    trainer = build_trainer(folder, settings)
    watch(trainer, clock)
    trainer.train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
