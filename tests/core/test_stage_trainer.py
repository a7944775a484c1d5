"""What every stage has from the trainer: order, resumption, accumulation, no NaN, refusals."""

import json
import logging

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_gym.core.errors import (
    FolderNotWritable,
    InvalidArgument,
    InvalidCheckpoint,
    NonFiniteTraining,
)
from rlhf_gym.core.models import add_lora
from rlhf_gym.core.supervised.common import StageConfig, last_checkpoint, open_folder, to_json
from rlhf_gym.core.supervised.language_model import perplexity
from rlhf_gym.core.supervised.packing import collate_rows, pack
from rlhf_gym.core.supervised.trainer import BucketSampler, train


def config(folder, **fields):
    defaults = {"batch_size": 4, "learning_rate": 0.01, "progress": False, "device": "cpu"}
    return StageConfig(output=str(folder), **{**defaults, **fields})


def model(seed=0):
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=20,
            n_positions=8,
            n_layer=1,
            n_head=1,
            n_embd=8,
            bos_token_id=1,
            eos_token_id=2,
            resid_pdrop=0.1,  # resuming must give back the random state too
        )
    )


def documents(count=24):
    rng = np.random.default_rng(0)
    return [rng.integers(3, 20, rng.integers(2, 8)).tolist() for _ in range(count)]


def collate(rows):
    return collate_rows(rows, pad_id=0)


def run(trained, settings, **arguments):
    open_folder(settings, "test")
    return train(trained, pack(documents(), 8), collate, settings, stage="test", **arguments)


def parameters(trained):
    return torch.cat([p.detach().ravel() for p in trained.parameters()])


def test_batches_hold_like_lengths_in_an_order_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, size=1003)
    sampler = BucketSampler(lengths, batch_size=10, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    assert list(sampler) == first
    batches = lengths[first[:1000]].reshape(-1, 10)
    assert np.ptp(batches, axis=1).mean() < 10  # at random it is about 80
    assert np.abs(np.diff(batches.mean(1))).mean() > 20  # but batches come in no order
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(BucketSampler(lengths, 10, seed=4)) != first


def killed(folder, after, **fields):
    """A run that Ctrl-C ends after so many updates."""

    def interrupt(_):
        raise KeyboardInterrupt

    settings = config(folder, evaluate_every=after, **fields)
    with pytest.raises(KeyboardInterrupt):
        run(model(), settings, evaluate=interrupt)


@pytest.mark.parametrize("after", [4, 5, 8])  # in the first epoch of 5, at its end, in the second
def test_a_killed_run_resumed_is_the_run_that_was_never_stopped(tmp_path, after):
    fields = {"epochs": 3.0, "checkpoint_every": 2}
    whole, resumed = model(), model(seed=1)  # the resumed one's weights are in the checkpoint
    steps = run(whole, config(tmp_path / "whole", **fields)).steps
    killed(tmp_path / "killed", after, **fields)
    assert last_checkpoint(tmp_path / "killed") is not None
    assert run(resumed, config(tmp_path / "killed", **fields)).steps == steps
    assert torch.equal(parameters(resumed), parameters(whole))
    assert not resumed.training


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    killed(tmp_path, 5, checkpoint_every=2, epochs=3.0)
    newest = last_checkpoint(tmp_path)
    assert newest.name == "checkpoint-4"
    (newest / "trainer_state.json").write_text('{"global_')
    assert last_checkpoint(tmp_path).name == "checkpoint-2"


def test_a_run_of_another_configuration_is_not_resumed(tmp_path):
    killed(tmp_path, 5, checkpoint_every=2, epochs=3.0)
    with pytest.raises(InvalidCheckpoint, match=r"differs in learning_rate.*--no-resume"):
        run(model(), config(tmp_path, checkpoint_every=2, epochs=3.0, learning_rate=0.1))
    with pytest.raises(InvalidCheckpoint, match="differs in stage"):
        open_folder(config(tmp_path, epochs=3.0), "another")
    (tmp_path / "stage.json").write_text("{")
    with pytest.raises(InvalidCheckpoint, match="differs in stage"):
        open_folder(config(tmp_path, epochs=3.0), "test")
    open_folder(config(tmp_path, resume=False), "another")
    assert last_checkpoint(tmp_path) is None


def test_accumulated_batches_are_one_big_batch(tmp_path):
    at_once, in_parts = model(), model()
    count = len(pack(documents(), 8))
    for dropout_free in (at_once, in_parts):
        dropout_free.config.resid_pdrop = 0.0
        for module in dropout_free.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    run(at_once, config(tmp_path / "1", batch_size=count, max_steps=3))
    run(in_parts, config(tmp_path / "2", batch_size=2, accumulate=-(-count // 2), max_steps=3))
    # Rows have different numbers of labels: a mean of means would not agree.
    torch.testing.assert_close(parameters(in_parts), parameters(at_once), rtol=1e-4, atol=1e-5)


def test_a_nan_stops_the_run_before_the_update(tmp_path):
    trained, seen = model(), []

    def loss(network, batch):
        seen.append(parameters(network).clone())
        value = network(**batch).loss
        return value * torch.nan if len(seen) == 4 else value

    with pytest.raises(NonFiniteTraining, match=r"update 4 .*checkpoint-2.*Lower learning_rate"):
        run(trained, config(tmp_path, checkpoint_every=2), loss=loss)
    assert torch.equal(parameters(trained), seen[-1])
    assert last_checkpoint(tmp_path).name == "checkpoint-2"


def test_metrics_are_computed_after_each_epoch_and_logged(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    calls = []

    def evaluate(network):
        assert not network.training
        calls.append(1)
        return {"accuracy": 0.5 + len(calls)}

    trained = run(model(), config(tmp_path, epochs=2.0, log_every=1), evaluate=evaluate)
    assert len(calls) == 2  # the last one is not computed twice
    assert trained.metrics == {"accuracy": 2.5}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train/loss", "train/learning_rate", "eval/accuracy"} <= set(events.Tags()["scalars"])
    assert [event.value for event in events.Scalars("eval/accuracy")] == [1.5, 2.5]
    assert len(events.Scalars("train/loss")) == trained.steps


def test_a_learning_model_learns(tmp_path):
    """A uniform guess has loss ln 20 = 3.0; the documents are 24 and can be learned by heart."""
    losses = []
    run(
        model(),
        config(tmp_path, epochs=30.0, warmup=0.0, checkpoint_every=1000),
        loss=lambda network, batch: losses.append(network(**batch).loss) or losses[-1],
    )
    assert losses[0] > 2.9
    assert sum(losses[-5:]) / 5 < 2.6


def test_only_adapters_move_in_a_lora_run(tmp_path):
    base = model()
    before = base.transformer.wte.weight.clone()
    policy = add_lora(base, 2)
    run(policy, config(tmp_path, max_steps=3))
    adapters = [p for name, p in policy.named_parameters() if "lora_B" in name]
    assert adapters
    assert all(p.abs().sum() > 0 for p in adapters)
    assert torch.equal(base.transformer.wte.weight, before)


def test_a_run_says_nothing_but_its_progress_bar(tmp_path, capfd):
    run(model(), config(tmp_path / "quiet"))
    out, err = capfd.readouterr()
    assert out == err == ""
    run(model(), config(tmp_path / "bar", progress=True, log_every=1))
    out, err = capfd.readouterr()
    assert out.startswith("test ━")
    assert "loss" in out
    assert "{" not in out
    assert err == ""


def test_perplexity_is_computed_without_a_word(tmp_path, capfd):
    model().save_pretrained(tmp_path)
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path)
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    capfd.readouterr()  # bars of saving and loading, unless a test before has switched them off
    assert perplexity(loaded, pack(documents(), 8), collate, batch_size=4)["tokens"] > 24
    assert capfd.readouterr().err == ""


def test_bfloat16_needs_no_accelerator(tmp_path):
    run(model(), config(tmp_path, bf16=True, device="auto", max_steps=1))


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FolderNotWritable, match=r"output=.*nothing can be written there"):
        open_folder(config(tmp_path / "file" / "run"), "test")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("accumulate", 0),
        ("log_every", 0),
        ("max_steps", 0),
        ("evaluate_every", -1),
        ("checkpoint_every", 0),
        ("epochs", 0.0),
        ("learning_rate", -1e-3),
        ("max_grad_norm", 0.0),
        ("held_out", 1.0),
        ("warmup", -0.1),
        ("weight_decay", -0.1),
    ],
)
def test_fields_that_cannot_be(tmp_path, field, value):
    with pytest.raises(InvalidArgument, match=f"{field}="):
        config(tmp_path, **{field: value})


def test_summaries_are_strict_json(tmp_path):
    content = {"a": (1, np.float32(0.5)), "b": float("nan"), "c": tmp_path, "d": config(tmp_path)}
    read = json.loads(json.dumps(to_json(content), allow_nan=False))
    assert (read["a"], read["b"], read["c"]) == ([1, 0.5], None, str(tmp_path))
    assert read["d"]["batch_size"] == 4
