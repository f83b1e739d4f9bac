"""A cut of a data set in two parts that share no text: no text of one part contains a text of the other.

Some data sets hold parts of sentences beside the sentences themselves. The training rows of SST-2 are phrases of about
7,000 sentences; a random dev set of them consists of texts that training has seen as parts of others.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence

Words = tuple[str, ...]
WORD = re.compile(r"\w+|[^\w\s]")
ANCHOR = 4  # words by which a text is looked up; more make lookups rarer


def words_of(text: str) -> Words:
    """Split a text into words and punctuation marks, without regard to case."""
    return tuple(WORD.findall(text.casefold())) or (text,)


def contained_texts(texts: Sequence[tuple[Words, ...]]) -> list[list[int]]:
    """Find the texts that stand inside others, word for word.

    A pair contains another pair if each of its texts contains the other's text of the same column.

    Args:
        texts: Different texts, each as a tuple of columns.

    Returns:
        For each text, the numbers of the others that it contains.
    """
    starts = collections.defaultdict(list)
    for number, text in enumerate(texts):
        starts[text[0][:ANCHOR]].append(number)
    lengths = sorted(set(map(len, starts)))  # long texts have one only, which is faster
    return [sorted(_inside(number, texts, starts, lengths)) for number in range(len(texts))]


def _inside(
    number: int, texts: Sequence[tuple[Words, ...]], starts: dict[Words, list[int]], lengths: list[int]
) -> set[int]:
    first, *rest = texts[number]
    inside = set()
    for place in range(len(first)):
        for length in lengths:
            for other in starts.get(first[place : place + length], ()):
                start, *others = texts[other]
                if first[place : place + len(start)] == start and all(map(_stands_in, others, rest)):
                    inside.add(other)
    return inside - {number}


def _stands_in(part: Words, whole: Words) -> bool:
    return any(whole[place : place + len(part)] == part for place in range(len(whole) - len(part) + 1))


def cut(records: Sequence[dict], columns: Sequence[str], size: int) -> tuple[list[dict], list[dict]]:
    """Cut records in two parts that share no text.

    The largest texts (those that no other contains) go to the first part in the order of the records, until it has
    `size` records. A text that large texts of both parts contain goes to neither. Where no text contains another, the
    first part is the first `size` records, and the second part is the rest.

    Args:
        records: Records in random order.
        columns: Their text columns.
        size: Number of records of the first part.

    Returns:
        Both parts, in the order of the records. The first one is shorter than `size` if all records are not enough.
    """
    texts = [tuple(words_of(record[column]) for column in columns) for record in records]
    different = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    numbers = [different[text] for text in texts]
    inside, copies = contained_texts(list(different)), collections.Counter(numbers)
    families = {number: [number, *inside[number]] for number in set(copies).difference(*inside)}
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
