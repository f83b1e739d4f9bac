"""Prepared splits to batches: texts are tokenised once and padded to few lengths, so that few graphs are compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor
from tokenizers import Tokenizer

from mindspore_rt.cells import noise

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # lengths of batches, in word pieces
TEXTS_AT_ONCE = 4096  # what the tokenizer returns for a text takes many times the memory of its ids


@dataclass
class Batch:
    """One batch, or one worker's part of it, padded to the length of its bucket and to its full number of rows.

    Attributes:
        ids: (rows, length) int32, word pieces.
        attention_mask: (rows, length) float32, 1 for pieces and for the first position of a filler row, 0 for padding.
        token_types: (rows, length) int32, 1 for the second text of a pair.
        targets: (rows, labels) float32, one-hot rows divided by the number of sentences; zero for filler rows.
        indices: (sentences,) which sentences of the split stand in the first rows.
    """

    ids: np.ndarray
    attention_mask: np.ndarray
    token_types: np.ndarray
    targets: np.ndarray
    indices: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ids, attention mask, token types and targets for MindSpore."""
        return tuple(Tensor(a) for a in (self.ids, self.attention_mask, self.token_types, self.targets))


class Batches:
    """The tokenised sentences of a split, in batches of one size and few lengths.

    Args:
        texts: One tuple of columns a sentence: a single text or a pair.
        labels: (n,) int64.
        classes: Number of labels of the task.
        tokenizer: It cuts at `max_length`.
        max_length: Longest input, in word pieces.
        batch_size: Sentences in a batch, over all workers.
        seed: Of the order of sentences.
    """

    def __init__(
        self,
        texts: Sequence[tuple[str, ...]],
        labels: np.ndarray,
        classes: int,
        tokenizer: Tokenizer,
        max_length: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.ids, self.types = [], []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = [text if len(text) > 1 else text[0] for text in texts[start : start + TEXTS_AT_ONCE]]
            encodings = tokenizer.encode_batch(part)
            self.ids += [np.array(encoding.ids, np.int32) for encoding in encodings]
            self.types += [np.array(encoding.type_ids, np.int32) for encoding in encodings]
        self.labels, self.classes, self.batch_size, self.seed = labels, classes, batch_size, seed
        self.buckets = [bucket for bucket in BUCKETS if bucket < max_length] + [max_length]

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self.ids) // self.batch_size)

    def epoch(self, number: int) -> list[np.ndarray]:
        """Draw the batches of one epoch, as indices of sentences.

        Sentences of similar length go together, which saves padding: they are shuffled, sorted by length within
        stretches of 16 batches, and the batches are shuffled again.
        """
        random = noise.generator(self.seed, noise.SHUFFLE, number)
        order, stretch = random.permutation(len(self.ids)), 16 * self.batch_size
        batches = []
        for start in range(0, len(order), stretch):
            part = sorted(order[start : start + stretch], key=lambda i: len(self.ids[i]))
            batches += [np.array(part[i : i + self.batch_size]) for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]

    def by_length(self) -> list[np.ndarray]:
        """Return batches of all sentences sorted by length, which pads least: for evaluation."""
        order = np.argsort([len(ids) for ids in self.ids], kind="stable")
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def length(self, indices: np.ndarray) -> int:
        """Return the bucket of a batch: the length of its longest sentence, rounded up."""
        longest = max(len(self.ids[i]) for i in indices)
        return next(bucket for bucket in self.buckets if bucket >= longest)

    def lengths(self, number: int) -> list[int]:
        """Return the buckets of epoch `number` in rising order: a graph is compiled for each."""
        return sorted({self.length(indices) for indices in self.epoch(number)})

    def batch(self, indices: np.ndarray, rank: int = 0, ranks: int = 1) -> Batch:
        """Build the batch of these sentences, or the part of it that one worker takes: every `ranks`-th sentence.

        All parts have the same shape, so that all workers compile the same graphs. A sentence weighs
        `ranks` / (sentences of the whole batch): then the workers' mean loss, or gradient, is that of the whole
        batch, also where one worker has a sentence less, or none.
        """
        part = indices[rank::ranks]
        shape = (-(-self.batch_size // ranks), self.length(indices))
        ids, mask, types = np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        targets = np.zeros((shape[0], self.classes), np.float32)
        mask[:, 0] = 1  # a filler row attends to its first position, so that its softmax is defined
        for row, i in enumerate(part):
            size = len(self.ids[i])
            ids[row, :size], mask[row, :size], types[row, :size] = self.ids[i], 1, self.types[i]
            targets[row, self.labels[i]] = ranks / len(indices)
        return Batch(ids, mask, types, targets, part)
