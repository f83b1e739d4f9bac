"""Batches: every sentence once, few shapes, token types of pairs, equal parts for data-parallel workers."""

import numpy as np
import pytest
from transformers import BertTokenizerFast

from configs.contract.inputs.tokenizer import load_tokenizer
from mindspore_rt.data import batches as module
from mindspore_rt.data.batches import Batches


@pytest.fixture(scope="module")
def batches(packaged_model):
    """83 pairs of 5 to 60 pieces, 3 classes, 8 a batch: the last batch of every order has 3."""
    random = np.random.default_rng(0)
    texts = [("good " * random.integers(1, 40), "film " * random.integers(1, 20)) for _ in range(83)]
    tokenizer = load_tokenizer(packaged_model, 60)
    return Batches(texts, random.integers(0, 3, 83), 3, tokenizer, 60, 8, seed=5)


def test_every_sentence_once_an_epoch(batches):
    for order in (batches.epoch(0), batches.epoch(1), batches.by_length()):
        assert len(order) == len(batches) == 11
        assert sorted(np.concatenate(order)) == list(range(83))


def test_epochs_differ_and_repeat(batches, packaged_model):
    def again(seed):
        texts = [("good",)] * 83
        tokenizer = load_tokenizer(packaged_model, 60)
        other = Batches(texts, batches.labels, 3, tokenizer, 60, 8, seed)
        other.ids = batches.ids
        return other

    first = [list(b) for b in batches.epoch(0)]
    assert [list(b) for b in again(5).epoch(0)] == first
    assert [list(b) for b in batches.epoch(1)] != first
    assert [list(b) for b in again(6).epoch(0)] != first


def test_shapes_come_from_few_buckets(batches):
    """So few graphs are compiled; and like lengths go together."""
    shapes = {batches.batch(indices).ids.shape for indices in batches.epoch(0)}
    assert len(shapes) > 1
    assert shapes <= {(8, length) for length in (16, 32, 48, 60)}
    padded = sum(batches.batch(i).ids.shape[1] * len(i) for i in batches.epoch(0))
    assert padded < 0.85 * 60 * 83


def test_rows_hold_their_sentence_and_nothing_else(batches):
    for indices in batches.by_length():
        batch = batches.batch(indices)
        for row, index in enumerate(indices):
            size = len(batches.ids[index])
            assert list(batch.ids[row, :size]) == list(batches.ids[index]) and not batch.ids[row, size:].any()
            assert list(batch.attention_mask[row]) == [1] * size + [0] * (batch.ids.shape[1] - size)
            assert batch.targets[row].argmax() == batches.labels[index]


def test_targets_average_over_real_rows(batches):
    """They sum to 1; filler rows weigh nothing and still attend to one position."""
    sizes = []
    for indices in batches.epoch(0):
        batch = batches.batch(indices)
        sizes.append(len(indices))
        assert batch.targets.sum() == pytest.approx(1)
        assert np.allclose(batch.targets[: len(indices)].sum(1), 1 / len(indices))
        assert not batch.targets[len(indices) :].any() and not batch.ids[len(indices) :].any()
        assert (batch.attention_mask[len(indices) :].sum(1) == 1).all()
    assert sorted(set(sizes)) == [3, 8]


def test_token_types_mark_the_second_part(batches):
    batch = batches.batch(np.arange(8))
    for row in range(8):
        first, second = np.flatnonzero(batch.ids[row] == 102)  # the two [SEP]
        assert not batch.token_types[row, : first + 1].any()
        assert batch.token_types[row, first + 1 : second + 1].all()
        assert not batch.token_types[row, second + 1 :].any()


def test_dtypes_of_tensors(batches):
    kinds = [str(t.dtype) for t in batches.batch(np.arange(8)).tensors()]
    assert kinds == ["Int32", "Float32", "Int32", "Float32"]


def test_pairs_keep_their_segments(packaged_model):
    """Ids, segments and mask of a batch are those of transformers' fast tokenizer, padded to the same length."""
    random, length = np.random.default_rng(1), 40
    words = np.array("good film , it 's a long-winded naïve comedy of 1999 !".split())
    texts = [tuple(" ".join(random.choice(words, random.integers(1, 50))) for _ in range(2)) for _ in range(16)]
    batches = Batches(texts, np.zeros(16, int), 2, load_tokenizer(packaged_model, length), length, 16, seed=0)
    batch = batches.batch(np.arange(16))
    cut = {"truncation": "longest_first", "padding": "max_length", "max_length": length}
    theirs = BertTokenizerFast.from_pretrained(packaged_model)
    expected = theirs(*map(list, zip(*texts)), **cut, return_tensors="np")
    assert batch.ids.shape == (16, length) and any(sum(map(len, t)) > 3 * length for t in texts)
    np.testing.assert_array_equal(batch.ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.token_types, expected["token_type_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])


def test_lengths_are_those_of_an_epoch(batches):
    for epoch in range(3):
        assert batches.lengths(epoch) == sorted({batches.batch(i).ids.shape[1] for i in batches.epoch(epoch)})


@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 16])
def test_workers_take_equal_parts_of_every_batch(batches, ranks):
    """Every sentence once, parts of one shape, and the mean over the workers is the whole batch's, also of the last
    batch of 3 sentences: for a loss that is a sum over rows weighted by their targets, and its gradient alike."""
    values = np.random.default_rng(2).standard_normal((83, 3))  # minus log probabilities of each sentence
    for indices in batches.epoch(0):
        whole, parts = batches.batch(indices), [batches.batch(indices, rank, ranks) for rank in range(ranks)]
        assert sorted(np.concatenate([part.indices for part in parts])) == sorted(indices)
        assert {part.ids.shape for part in parts} == {(-(-8 // ranks), whole.ids.shape[1])}
        assert max(len(p.indices) for p in parts) - min(len(p.indices) for p in parts) <= 1

        def loss(batch):
            rows = np.zeros(batch.targets.shape)
            rows[: len(batch.indices)] = values[batch.indices]
            return (batch.targets * rows).sum()

        assert np.mean([loss(part) for part in parts]) == pytest.approx(loss(whole))
        for part in parts:
            for row, index in enumerate(part.indices):
                there = list(whole.indices).index(index)
                np.testing.assert_array_equal(part.ids[row], whole.ids[there])
                np.testing.assert_array_equal(part.token_types[row], whole.token_types[there])


def test_many_texts_are_tokenised_in_parts(packaged_model, monkeypatch):
    texts = [(f"film {i}",) for i in range(10)]
    tokenizer = load_tokenizer(packaged_model, 16)
    whole = Batches(texts, np.zeros(10, int), 2, tokenizer, 16, 4, seed=0)
    monkeypatch.setattr(module, "TEXTS_AT_ONCE", 3)
    parts = Batches(texts, np.zeros(10, int), 2, tokenizer, 16, 4, seed=0)
    assert [list(i) for i in parts.ids] == [list(i) for i in whole.ids] and len(whole.ids) == 10
