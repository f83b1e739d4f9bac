"""The split into parts that share no text, against a comparison of every text with every other."""

import random
import time

import pytest

from mindspore_rt.data.containment import contained_texts, cut, words_of

COLUMNS = {1: ("sentence",), 2: ("premise", "hypothesis")}


def records_of(seed, columns, rows=60):
    """Rows of few different words, so that many texts contain others; some stand twice."""
    draw = random.Random(seed)
    rows = [{c: " ".join(draw.choices("abcde", k=draw.randint(1, 7))) for c in columns} for _ in range(rows)]
    return [{**row, "label": number} for number, row in enumerate(rows + rows[:5])]


def contains(one, other, columns):
    """Whether each text of a record contains the other's, as strings between spaces."""
    return all(f" {other[c]} " in f" {one[c]} " for c in columns)


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=["texts", "pairs"])
@pytest.mark.parametrize("seed", range(20))
def test_no_text_of_a_part_stands_in_one_of_the_other(seed, columns):
    records, size = records_of(seed, columns), 1 + seed % 10
    first, second = cut(records, columns, size)
    assert not [(a, b) for a in first for b in second if contains(a, b, columns) or contains(b, a, columns)]
    for part in (first, second):
        numbers = [record["label"] for record in part]
        assert numbers == sorted(set(numbers)) and numbers
    assert len(first) <= size


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=["texts", "pairs"])
def test_contained_texts_are_those_that_every_comparison_gives(columns):
    records = list({tuple(r[c] for c in columns): r for r in records_of(0, columns, 150)}.values())
    texts = [tuple(words_of(record[c]) for c in columns) for record in records]
    inside = [{n for n, other in enumerate(records) if contains(one, other, columns)} for one in records]
    largest = [n for n in range(len(records)) if sum(n in others for others in inside) == 1]
    found = {number: set(others) for number, others in contained_texts(texts).items()}
    assert found == {n: inside[n] for n in largest} and len(texts) - len(largest) > 10


class Counted(tuple):
    """Words that count how often they are read."""

    reads = 0

    def __getitem__(self, place):
        Counted.reads += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("same", ["prefix", "column"])
def test_texts_that_share_a_beginning_or_a_column_are_not_all_compared_with_each_other(same):
    """As a template, or the aspect of a review, gives them: 100,000 such texts took hours."""
    draw, reads = random.Random(0), []
    for count in (200, 800):
        bodies = [tuple(f"w{draw.randrange(3000)}" for _ in range(12)) for _ in range(count)]
        start = ("what", "is", "said", "here", ":")
        texts = [(start + body,) if same == "prefix" else (start, body) for body in bodies]
        Counted.reads = 0
        assert len(contained_texts([tuple(map(Counted, text)) for text in texts])) == count
        reads.append(Counted.reads)
    assert reads[1] < 6 * reads[0]


def test_nested_texts_are_compared_with_the_largest_alone():
    """Each begins one word later than the one before: 2,000 of them took 38 seconds."""
    reads = []
    for count in (50, 100):
        words = tuple(f"w{number}" for number in range(count))
        Counted.reads = 0
        found = contained_texts([(Counted(words[start:]),) for start in range(count)])
        assert {number: sorted(others) for number, others in found.items()} == {0: list(range(count))}
        reads.append(Counted.reads)
    assert reads[1] < 6 * reads[0]


def test_phrases_stay_with_their_sentence():
    """As in SST-2: a phrase of sentences of both parts goes to neither."""
    rows = ["A fine , moving film .", "moving film", "fine", "The film", "a dull film", "film .", "FILM", "dull"]
    first, second = cut([{"sentence": row} for row in rows], COLUMNS[1], 3)
    assert [row["sentence"] for row in first] == ["A fine , moving film .", "moving film", "fine"]
    assert [row["sentence"] for row in second] == ["The film", "a dull film", "dull"]


def test_without_contained_texts_it_is_the_plain_cut():
    records = [{"sentence": f"text {number}"} for number in range(50)]
    assert cut(records, COLUMNS[1], 8) == (records[:8], records[8:])


def test_it_takes_seconds_for_many_rows():
    """18,000 phrases of 2,000 sentences, of which SST-2 has three times as many: a second, where every comparison would
    take minutes."""
    draw, started = random.Random(0), time.process_time()
    sentences = [[f"w{int(draw.paretovariate(0.4))}" for _ in range(19)] for _ in range(2000)]
    spans = [(s, *sorted(draw.sample(range(20), 2))) for s in range(2000) for _ in range(9)]
    rows = [" ".join(words) for words in sentences] + [" ".join(sentences[s][a:b]) for s, a, b in spans]
    draw.shuffle(rows)
    first, second = cut([{"sentence": row} for row in rows], COLUMNS[1], 300)
    assert len(first) == 300 and len(second) > 14000
    assert time.process_time() - started < 20
