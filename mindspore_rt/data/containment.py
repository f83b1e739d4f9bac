"""A split of a data set into two parts that share no text: no text of one part contains a text of the other.

Some data sets hold parts of sentences beside the sentences themselves. The training rows of SST-2 are phrases of about
7,000 sentences; a random dev set of them consists of texts that training has seen as parts of others.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Sequence

Words = tuple[str, ...]
WORD = re.compile(r"\w+|[^\w\s]")
ANCHOR = 4  # words by which a text is looked up; more make lookups rarer


def words_of(text: str) -> Words:
    """Split a text into words and punctuation marks, without regard to case."""
    return tuple(WORD.findall(text.casefold())) or (text,)


def contained_texts(texts: Sequence[tuple[Words, ...]]) -> dict[int, list[int]]:
    """Find the largest texts, which no other contains, and all that stands inside them, word for word.

    A pair contains another pair if each of its texts contains the other's text of the same column.

    Args:
        texts: Different texts, each as a tuple of columns.

    Returns:
        For the number of each largest text, those of the texts that it contains, its own among them.
    """
    counts = [collections.Counter(itertools.chain.from_iterable(column)) for column in zip(*texts)]
    anchors: list[dict[Words, list[int]]] = [collections.defaultdict(list) for _ in counts]
    for number, text in enumerate(texts):
        # The rarest word and its neighbours: texts made by a template share their beginnings, pairs share a column.
        places = ((counts[c][word], c, place) for c, words in enumerate(text) for place, word in enumerate(words))
        _, column, place = min(places)
        start = max(0, min(place, len(text[column]) - ANCHOR))
        anchors[column][text[column][start : start + ANCHOR]].append(number)
    lengths = [set(map(len, anchored)) for anchored in anchors]  # one only where all texts are long, which is faster
    families: dict[int, list[int]] = {}
    contained: set[int] = set()  # what one of these contains is in the same largest texts
    by_size = sorted(range(len(texts)), key=lambda number: -sum(map(len, texts[number])))
    for number in itertools.filterfalse(contained.__contains__, by_size):
        candidates: set[int] = set()
        for words, anchored, widths in zip(texts[number], anchors, lengths):
            for place, width in itertools.product(range(len(words)), widths):
                candidates.update(anchored.get(words[place : place + width], ()))
        families[number] = [other for other in candidates if all(map(_stands_in, texts[other], texts[number]))]
        contained.update(families[number])
    return families


def _stands_in(part: Words, whole: Words) -> bool:
    return any(whole[place : place + len(part)] == part for place in range(len(whole) - len(part) + 1))


def cut(records: Sequence[dict], columns: Sequence[str], size: int) -> tuple[list[dict], list[dict]]:
    """Cut records in two parts that share no text.

    The largest texts (those that no other contains) go to the first part in the order of the records, each with the
    texts inside it, until it has `size` records. Left out of both parts are texts inside large texts of both, and the
    last records of the first part if it would have more than `size`. Where no text contains another, the first part is
    the first `size` records, and the second part is the rest.

    Args:
        records: Records in random order.
        columns: Their text columns.
        size: Number of records of the first part.

    Returns:
        Both parts, in the order of the records. The first part is shorter than `size` where there are too few records.
    """
    texts = [tuple(words_of(record[column]) for column in columns) for record in records]
    different = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    numbers = [different[text] for text in texts]
    families, copies = contained_texts(list(different)), collections.Counter(numbers)
    outside = collections.Counter(member for family in families.values() for member in family)
    touched: set[int] = set()
    count = 0
    for number in dict.fromkeys(numbers):
        if count >= size:
            break
        for member in families.get(number, ()):
            touched.add(member)
            outside[member] -= 1  # large texts of the second part that contain it
            count += 0 if outside[member] else copies[member]
    first = [record for record, number in zip(records, numbers) if number in touched and not outside[number]]
    return first[:size], [record for record, number in zip(records, numbers) if number not in touched]
