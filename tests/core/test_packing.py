"""Packing: no token is lost, and no document sees its neighbour."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig

from rlhf_gym.core.supervised.packing import Row, collate_rows, pack

SHAPE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "gpt2": GPT2Config(vocab_size=30, n_positions=16, n_layer=2, n_head=2, n_embd=8),
    "llama": LlamaConfig(vocab_size=30, intermediate_size=16, **SHAPE),
    "gpt_neox": GPTNeoXConfig(vocab_size=30, intermediate_size=16, **SHAPE),
}


def test_pieces_go_where_they_leave_the_least_room():
    documents = [[10, 11], [20, 21, 22, 23, 24, 25, 26], [30, 31, 32], [40]]
    # Pieces of at most 5: [20..24], [25, 26], [30..32], [10, 11]; [40] alone predicts nothing.
    # Longest first: 5 fills a row; 3 opens a second; a 2 fits behind it exactly; the other 2
    # opens a third.
    packed = pack(documents, context=5)
    assert [row.input_ids.tolist() for row in packed.items] == [
        [20, 21, 22, 23, 24],
        [30, 31, 32, 10, 11],
        [25, 26],
    ]
    assert [row.positions.tolist() for row in packed.items] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2, 0, 1],
        [0, 1],
    ]
    assert packed.lengths.tolist() == [5, 5, 2]


def test_every_token_is_in_exactly_one_row():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 40, size=200)
    numbers = iter(range(10_000))
    documents = [[next(numbers) for _ in range(length)] for length in lengths]
    packed = pack(documents, context=16)
    placed = sorted(int(i) for row in packed.items for i in row.input_ids)
    # What may be missing are lone last tokens: those of lengths 17 and 33.
    lone = {document[-1] for document in documents if len(document) % 16 == 1}
    assert placed == sorted({i for document in documents for i in document} - lone)
    assert packed.lengths.max() <= 16
    assert packed.lengths.mean() > 15  # hardly any room is wasted
    for row in packed.items:
        neighbours = np.diff(row.input_ids)[np.diff(row.positions) == 1]
        assert (neighbours == 1).all()  # pieces are stretches of documents


def test_labels_begin_with_the_second_token_of_a_piece():
    rows = [
        Row(np.array([5, 6, 7, 8], np.int32), np.array([0, 1, 0, 1], np.int32)),
        Row(np.array([9, 3], np.int32), np.array([0, 1], np.int32)),
    ]
    batch = collate_rows(rows, pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 3, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1], [0, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, -100, 8], [-100, 3, -100, -100]]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_packed_row_has_the_losses_of_its_documents_alone(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    generator = torch.Generator().manual_seed(0)
    documents = [
        torch.randint(1, 30, (length,), generator=generator).tolist() for length in (7, 5, 4, 9)
    ]
    batch = collate_rows(pack(documents, context=16).items, pad_id=0)
    assert len(batch["input_ids"]) == 2
    predicted = sum(len(document) - 1 for document in documents)
    packed = model(**batch).loss * predicted
    alone = sum(
        model(input_ids=torch.tensor([d]), labels=torch.tensor([d])).loss * (len(d) - 1)
        for d in documents
    )
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
