"""The encoder that computes each window once, against the library's."""

import random

import numpy as np
import pytest

from torch_eval.recipes import packaged_resources, sentence_encoder

WORDS = "the film is a slow , honest and bright portrait of grief that never begs for tears".split()


@pytest.fixture(scope="module")
def library():
    return packaged_resources.sentence_model()


@pytest.fixture
def encode(library):
    return sentence_encoder.WindowEncoder(library)


def candidates(length):
    """A text, and what an attack makes of it: another word at one place, in halves, gone, with strange letters."""
    words = (WORDS * length)[:length]
    places = random.Random(length).sample(range(length), min(length, 5))
    changes = ["terrible", "b ad", "", "ꞙіlm", "qwzxv", "日本", "pоrtrait's"]
    return [" ".join(words)] + [" ".join([*words[:i], new, *words[i + 1 :]]) for i in places for new in changes]


@pytest.mark.parametrize("length", [1, 2, 7, 40, 700])
def test_vectors_are_the_librarys(encode, library, length):
    texts = candidates(length)
    np.testing.assert_allclose(encode(texts), library.encode(texts), atol=2e-6)


@pytest.mark.parametrize("length", [4, 40, 400])
def test_exact_vectors_are_the_librarys_to_the_bit(length, encode, library, monkeypatch):
    """Of those that are asked for. At 400 words each text is more than one batch of the library's may hold."""
    texts = candidates(length)[:6]
    expected, encoded = library.encode(texts), []
    encode_part = encode._library.encode
    monkeypatch.setattr(encode._library, "encode", lambda some: encoded.extend(some) or encode_part(some))
    for places in ([3], [0, 5], range(6)):
        np.testing.assert_array_equal(encode.exact(texts, places)[list(places)], expected[list(places)])
    if length == 400:
        assert encoded == [texts[i] for i in (3, 0, 5, *range(6))]


def test_texts_without_words_and_the_ends_of_texts(encode, library):
    """Texts of one batch must not affect each other."""
    texts = ["", " ", "\n", "�", "a", "a a", "film", "begs for", "for tears", "x" * 300]
    np.testing.assert_allclose(encode(texts), library.encode(texts), atol=2e-6)


def test_windows_of_many_tokens_do_not_run_into_each_other():
    """A base of 13 bits: five columns are more than 64 bits hold, and the last one's top bit would be lost."""
    rows = np.array([[1, 2, 3, 4, 0], [1, 2, 3, 4, 4096], [1, 2, 3, 4, 0]])
    different, which = sentence_encoder._different(rows, 8192)
    np.testing.assert_array_equal(different[which.ravel()], rows)
    assert len(different) == 2


def test_words_are_split_as_in_the_whole_text(encode, library):
    for text in candidates(40) + ["  two  spaces ", "ﬁne № ½", "a▁b ▁ c"]:
        assert encode._tokens(text) == library._tokenizer.encode(text), text
