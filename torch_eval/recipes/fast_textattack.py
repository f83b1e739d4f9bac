"""TextAttack made ready to import offline, and its own classes at less cost: same decisions, same order.

Importing this module sets up the environment that `import textattack` wants, so import it first. What the classes
work with (synonyms, encoder, tagger, masked model) is handed to them; see `resources.py` and `original.py`.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path

from configs.contract import assets
from torch_eval.assets import packaged


def prepare_environment() -> None:
    """Let TextAttack start and run offline. Call before it is imported; callable any number of times.

    Its import reads NLTK's English stop words and, on first use, tries six downloads unless a marker
    file says that they were done. The user's own NLTK_DATA and TA_CACHE_DIR stand in front: recipes beside the
    three find there what they need.
    """
    home = assets.CACHE / "textattack"
    corpus = home / "nltk_data" / "corpora" / "stopwords"
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in (home / "nltk_data", corpus.parent, corpus):
        folder.chmod(0o755)  # NLTK refuses data that others may write, whatever the umask was
    if not (corpus / "english").exists():
        (corpus / "english").write_bytes(packaged.STOP_WORDS.read_bytes())
    cache = Path(os.environ.setdefault("TA_CACHE_DIR", str(home)))
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "post_install_check_3").touch()
    folders = [*filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep)), str(home / "nltk_data")]
    os.environ.update(
        NLTK_DATA=os.pathsep.join(dict.fromkeys(folders)),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


prepare_environment()

import nltk  # noqa: E402
import textattack.shared.attacked_text  # noqa: E402
import textattack.shared.utils.strings  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402  before TextAttack sets a variable that it warns about
from textattack.constraints import grammaticality  # noqa: E402
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder  # noqa: E402
from textattack.shared.utils import check_if_subword, is_one_word  # noqa: E402
from textattack.transformations import WordSwapHomoglyphSwap, WordSwapMaskedLM  # noqa: E402

textattack.shared.utils.logger.setLevel(logging.ERROR)
transformers.logging.set_verbosity_error()


def stored(name: str, skip_if_cached: bool = True) -> str:
    """In place of TextAttack's download: what it fetches is unverified, and in part pickles, which run code."""
    path = Path(os.environ["TA_CACHE_DIR"], name)
    if not path.exists():
        raise FileNotFoundError(f"put https://textattack.s3.amazonaws.com/{name}, unpacked, at {path}")
    return str(path)


textattack.shared.utils.download_from_s3 = stored
nltk.download = lambda *_, **__: False


class SentenceSimilarity(SentenceEncoder):
    """Similarity by `encode` (texts to an array of vectors). The stock class encodes the reference again and again.

    A sum's last bits depend on what else is in a batch, and where attacks swap characters that the encoder reads
    alike, they decide which text is the most similar. So that the choice is stock's, scores that are nearly the same
    when they are compared are computed again from stock's own batch, by `exact`, which stock uses to encode.
    """

    def __init__(self, encode: Callable, exact: Callable | None = None, **parameters):
        super().__init__(**parameters)
        self._encode, self._exact = encode, exact or encode
        self._vectors: dict[str, torch.Tensor] | None = {}

    def encode(self, sentences) -> torch.Tensor:
        if self._vectors is None:
            return torch.as_tensor(self._exact(list(sentences)))
        new = [text for text in dict.fromkeys(sentences) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, torch.as_tensor(self._encode(new))))
        return torch.stack([self._vectors[text] for text in sentences])

    def clear_cache(self) -> None:
        """TextAttack calls this after every example, so an example never sees another's vectors."""
        self._vectors.clear()

    def _check_constraint_many(self, transformed_texts, reference_text):
        kept = super()._check_constraint_many(transformed_texts, reference_text)
        exact = functools.cache(lambda: self._stock_scores(transformed_texts, reference_text))
        for i, text in enumerate(transformed_texts):
            text.attack_attrs["similarity_score"] = Late(text.attack_attrs["similarity_score"], exact, i)
        return kept

    def _stock_scores(self, texts, reference) -> list[float]:
        vectors, self._vectors = self._vectors, None
        try:
            scores = self._score_list(reference, texts).tolist()
        finally:
            self._vectors = vectors
        short = self.window_size if self.skip_text_shorter_than_window else 0
        return [1.0 if len(text.words) < short else score for text, score in zip(texts, scores)]


# More than rounding makes of a score: an angle near 0 is the root of a cosine's last bits, sqrt(2 * 5e-6) / pi.
NEARLY = 1e-3


class Late(float):
    """A number that is looked up, as item `i` of what `exact` returns, when it is compared with nearly the same."""

    def __new__(cls, about: float, exact: Callable[[], list[float]], i: int):
        number = super().__new__(cls, about)
        number.exact = lambda: exact()[i]
        return number

    def __gt__(self, other) -> bool:
        if abs(float(self) - float(other)) > NEARLY:
            return float(self) > float(other)
        return self.exact() > (other.exact() if isinstance(other, Late) else other)


class PartOfSpeech(grammaticality.PartOfSpeech):
    """Stock constraint with a tagger in memory: `tag` gives a universal tag for each word of a list."""

    def __init__(self, tag: Callable, **parameters):
        super().__init__(tagger_type="handed", **parameters)
        self._tag = tag

    def _get_pos(self, before_ctx, word, after_ctx):
        words = before_ctx + [word] + after_ctx
        key = " ".join(words)
        if key not in self._pos_tag_cache:
            self._pos_tag_cache[key] = (words, self._tag(words))
        return super()._get_pos(before_ctx, word, after_ctx)


class HomoglyphSwap(WordSwapHomoglyphSwap):
    """Stock word swap; the wheel of 0.3.11 lacks a file that its constructor reads last and the swap never uses."""

    def __init__(self, **parameters):
        try:
            super().__init__(**parameters)
        except FileNotFoundError:
            pass


class MaskedWords(WordSwapMaskedLM):
    """BERT-Attack's replacements, the same candidates in the same order as the stock class, at less cost.

    The stock class runs the masked model once for every word of a text, padded to 512 pieces. For a word
    of n pieces it builds all K**n combinations, sorts them into nothing (the sorted list is dropped) and
    keeps the first K that are one word. Here: one forward pass a text, unpadded, combinations on demand.
    """

    def __init__(self, **parameters):
        super().__init__(method="bert-attack", **parameters)
        self._predicted: tuple[str, list] = ("", [])

    def _get_transformations(self, current_text, indices_to_modify):
        predictions = self._predictions(current_text.text)
        texts = []
        for index in list(indices_to_modify):
            for word in self._replacements(current_text, index, predictions):
                if word != current_text.words[index]:
                    texts.append(current_text.replace_word_at_index(index, word))
        return texts

    @torch.inference_mode()
    def _predictions(self, text: str) -> list[list[int]]:
        """The K likeliest pieces at every position of a text; remembered for the last text."""
        if self._predicted[0] != text:
            encoded = self._lm_tokenizer(text, max_length=self.max_length, truncation=True, return_tensors="pt")
            logits = self._language_model(**encoded)[0][0]
            self._predicted = (text, torch.topk(logits, self.max_candidates).indices.tolist())
        return self._predicted[1]

    def _replacements(self, current_text, index: int, predictions: list[list[int]]) -> list[str]:
        tokenizer = self._lm_tokenizer
        masked = current_text.replace_word_at_index(index, tokenizer.mask_token).text
        ids = tokenizer(masked, max_length=self.max_length, truncation=True)["input_ids"]
        if tokenizer.mask_token_id not in ids:  # cut off
            return []
        first = ids.index(tokenizer.mask_token_id)
        count = len(tokenizer.encode(current_text.words[index], add_special_tokens=False))
        pieces = [tokenizer.convert_ids_to_tokens(row) for row in predictions[first : first + count]]
        if not pieces:
            return []
        if len(pieces) == 1:
            kind = self._language_model.config.model_type
            return [word for word in pieces[0] if is_one_word(word) and not check_if_subword(word, kind, index == 0)]
        words = ("".join(combination).replace("##", "") for combination in itertools.product(*pieces))
        return list(itertools.islice(filter(is_one_word, words), self.max_candidates))


STOCK_SPLIT = textattack.shared.utils.words_from_text


@functools.lru_cache(1 << 16)
def _split(text: str) -> tuple[str, ...]:
    return tuple(STOCK_SPLIT(text))


def _words_from_text(s, words_to_ignore=()):
    return STOCK_SPLIT(s, list(words_to_ignore)) if words_to_ignore else list(_split(s))


def remember_word_splits(remember: bool = True) -> None:
    """Memoise TextAttack's word splitter, which it runs about twice for every word of every candidate."""
    split = _words_from_text if remember else STOCK_SPLIT
    for module in (textattack.shared.utils, textattack.shared.utils.strings, textattack.shared.attacked_text):
        module.words_from_text = split
