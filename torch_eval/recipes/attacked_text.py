"""TextAttack's texts, built at less cost.

This module imports TextAttack: call `textattack_offline.prepare` first.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from itertools import accumulate, count
from typing import Any, NamedTuple

import numpy as np
import textattack.shared.attacked_text
from textattack.shared import AttackedText

CHINESE = re.compile("[\u4e00-\u9fff]")  # as in `words_from_text`


class Layout(NamedTuple):
    """Where the words of a text are.

    Attributes:
        text: The columns, joined by TextAttack's token.
        starts: Of each word in it.
        counts: Words that each word is split into if it stands alone; Chinese words are not always one.
        before: Sums of `counts` before each word.
        plain: Whether no column has Chinese characters, with which all of it would be split in another way.
    """

    text: str
    starts: list[int]
    counts: list[int]
    before: list[int]
    plain: bool


class Text(AttackedText):
    """A text whose candidates are built from their changes alone.

    The stock class goes through all words for each candidate, and copies the rest of the text for each of them. It also
    splits every candidate into words, although many are only classified.

    The words are those of one column after another. The stock class splits the joined columns: one Chinese character in
    any of them selects another splitter for all, and the numbers of the words no longer fit `words_per_input`, by which
    columns are protected.

    Args:
        text_input: Columns by name.
        attack_attrs: What TextAttack notes on a candidate; None for an original text.
    """

    def __init__(self, text_input: OrderedDict[str, str], attack_attrs: dict[str, Any] | None = None) -> None:
        attributes = attack_attrs or {}
        # What a candidate was made of: a text, and its new words by the number of the old one.
        self._changes: tuple[Text, dict[int, list[str]]] | None = None
        is_candidate = "original_index_map" in attributes
        self._lazy = is_candidate  # the stock constructor asks for the number of words, and does not use it then
        super().__init__(text_input, attributes)
        self._lazy = False
        self._layout: Layout | None = None

    @property
    def num_words(self) -> int:
        """Number of words."""
        return 0 if self._lazy else len(self.words)

    @property
    def words_per_input(self) -> list[list[str]]:
        """Words of each column; those of a candidate come from the text that it was made of."""
        if not self._words_per_input and self._changes:
            origin, replacements = self._changes
            number = count()
            self._words_per_input: list[list[str]] = [
                [new for word in words for new in replacements.get(next(number), (word,))]
                for words in origin.words_per_input
            ]
        return super().words_per_input

    @property
    def words(self) -> list[str]:
        """Words of all columns."""
        if not self._words:
            self._words: list[str] = [word for words in self.words_per_input for word in words]
        return self._words

    def generate_new_attacked_text(self, new_words: Iterable[str]) -> Text:
        """Return the text with other words."""
        new_words = list(new_words)
        layout = self._layout = self._layout or self._lay_out()
        if layout is not None and len(new_words) == len(self.words):
            changed = [i for i, (old, new) in enumerate(zip(self.words, new_words)) if old != new]
            candidate = self._replace(layout, changed, new_words)
            if candidate is not None:
                return candidate
        stock = super().generate_new_attacked_text(new_words)
        return Text(stock._text_input, attack_attrs=stock.attack_attrs)

    def _lay_out(self) -> Layout | None:
        """Find the words; None where the stock class does more than join words."""
        split = textattack.shared.attacked_text.words_from_text
        starts, end, offset = [], 0, 0
        for column, words in zip(self._text_input.values(), self.words_per_input, strict=True):
            end = 0
            for word in words:
                start = column.find(word, end)
                if start < 0:
                    return None
                starts.append(offset + start)
                end = start + len(word)
            offset += len(column) + len(self.SPLIT_TOKEN)
        counts = [len(split(word)) for word in self.words]
        if 0 in counts:  # stock takes such a word for a deleted one
            return None
        text = self.SPLIT_TOKEN.join(self._text_input.values())
        return Layout(text, starts, counts, [0, *accumulate(counts)], not CHINESE.search(text))

    def _replace(self, layout: Layout, changed: list[int], new_words: list[str]) -> Text | None:
        """Build a candidate with the attributes that the stock class gives it; None where that class would fail."""
        split, text, at, built, shift = textattack.shared.attacked_text.words_from_text, layout.text, 0, "", 0
        modified = set(self.attack_attrs["modified_indices"])
        newly: set[int] = set()
        index_map = self.attack_attrs["original_index_map"].copy()
        replacements: dict[int, list[str]] = {}
        for i in changed:
            start, end = layout.starts[i], layout.starts[i] + len(self.words[i])
            built, at = built + text[at:start], end
            words = replacements[i] = split(new_words[i])
            difference = len(words) - layout.counts[i]
            if difference:
                modified = {m + difference * (m > i) for m in modified if m != i}
                _shift(index_map, i, difference, before=bool(words) and self.words[i] != words[0])
            new = range(layout.before[i] + shift, layout.before[i] + shift + len(words))
            modified.update(new)
            newly.update(new)
            shift += difference
            if not words and at < len(text):  # a space goes with the word
                if i > 0 and not built:
                    return None
                if i == 0:
                    at += text[at] == " "
                elif built[-1] == " ":
                    built = built[:-1]
            built += new_words[i]
        columns = (built + text[at:]).split(self.SPLIT_TOKEN)
        attributes = {name: self.attack_attrs[name] for name in ("label_names",) if name in self.attack_attrs}
        attributes |= {"newly_modified_indices": newly, "previous_attacked_text": self}
        attributes |= {"modified_indices": modified, "original_index_map": index_map}
        candidate = Text(OrderedDict(zip(self._text_input, columns)), attributes)
        if layout.plain and not any(CHINESE.search(new_words[i]) for i in changed):
            candidate._changes = (self, replacements)
        return candidate


def _shift(index_map: np.ndarray, i: int, difference: int, before: bool) -> None:
    """Update where the words of the original text are, after the replacement of word `i`.

    Args:
        index_map: For each word of the original text its number in the candidate; changed in place.
        i: Number of the replaced word.
        difference: Number of words that the text has gained; negative if it has lost some.
        before: Whether new words stand before the old one.
    """
    at_word, behind = index_map == i, index_map > i
    if difference == -1:
        index_map[at_word] = -1
    index_map[behind] += difference
    if difference > 0 and before:
        index_map[index_map == i] += difference
