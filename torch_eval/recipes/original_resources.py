"""The resources that TextAttack's recipes download, from a folder that is filled by hand (`attack.resources_dir`).

    paragramcf/                  counter-fitted vectors: https://textattack.s3.amazonaws.com/word_embeddings/paragramcf
                                 (one archive of about 480 MB)
    universal-sentence-encoder/  https://tfhub.dev/google/universal-sentence-encoder/3, unpacked (about 1 GB);
                                 needs the packages tensorflow and tensorflow_hub, which no requirement here brings
    nltk_data/                   python -m nltk.downloader -d nltk_data averaged_perceptron_tagger_eng \\
                                 universal_tagset stopwords (about 3 MB)
    bert-base-uncased/           https://huggingface.co/google-bert/bert-base-uncased (about 440 MB)

No list of their hashes is published by all of their makers, so files are checked by name and by whether they fit
together, and their SHA-256 goes into every manifest.
"""

from __future__ import annotations

import functools
import importlib.util
import pickle
from pathlib import Path

from configs.contract.errors import UserError
from configs.contract.files import file_hash
from torch_eval.assets import packaged

TAGGER = "nltk_data/taggers/averaged_perceptron_tagger_eng"
FILES = {
    "synonyms": ["paragramcf/paragram.npy", "paragramcf/wordlist.pickle", "paragramcf/nn.npy"],
    "sentence encoder": [
        f"universal-sentence-encoder/{name}"
        for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
    ],
    "tagger": [
        *[f"{TAGGER}/averaged_perceptron_tagger_eng.{part}.json" for part in ("weights", "tagdict", "classes")],
        "nltk_data/taggers/universal_tagset/en-ptb.map",
    ],
    "stop words": ["nltk_data/corpora/stopwords/english"],
    "masked language model": [
        f"bert-base-uncased/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")
    ],
}


def describe(name: str, folder: str | None, recipe: str) -> dict:
    """Files of one resource of a recipe with their hashes, for manifests. Raises `UserError` naming all that are
    missing. TextFooler's stop words are its own, and stand in this project."""
    if (name, recipe) == ("stop words", "textfooler"):
        return packaged.describe(name)
    if folder is None:
        raise UserError("attack.resources=original: say with attack.resources_dir=FOLDER where the files are")
    root = Path(folder)
    missing = [file for file in FILES[name] if not (root / file).is_file()]
    if missing:
        raise UserError(
            f"attack.resources=original, {name}: put {', '.join(missing)} into {root} "
            f"(torch_eval/recipes/original_resources.py says where they come from), or use attack.resources=packaged"
        )
    if name == "sentence encoder" and importlib.util.find_spec("tensorflow_hub") is None:
        raise UserError(
            "attack.resources=original, sentence encoder: the package tensorflow_hub is missing: "
            "run `pip install tensorflow tensorflow_hub` in this environment, or use attack.resources=packaged"
        )
    return {file: _hash(root / file) for file in FILES[name]}


@functools.cache
def _hash(path: Path) -> str:
    return file_hash(path)


class Original:
    """The original resources in the classes that attacks are built of."""

    def __init__(self, folder: str):
        self.root = Path(folder)

    @functools.cache
    def synonyms(self):
        """TextAttack's embedding of the counter-fitted vectors. Raises `UserError` if its files do not fit together."""
        import numpy as np
        from textattack.shared import WordEmbedding

        folder = self.root / "paragramcf"
        try:
            with open(folder / "wordlist.pickle", "rb") as file:
                index = PlainPickle(file).load()
            vectors, neighbours = (np.load(folder / name) for name in ("paragram.npy", "nn.npy"))
        except (pickle.UnpicklingError, ValueError, EOFError) as error:
            raise UserError(f"{folder}: not TextAttack's counter-fitted vectors ({error})") from None
        if not len(vectors) == len(neighbours) == len(index) or neighbours.shape[1] < 51:
            raise UserError(
                f"{folder}: {len(index)} words, vectors {vectors.shape} and neighbours {neighbours.shape} do not fit "
                f"together (a row for each word, 51 neighbours or more)"
            )
        return WordEmbedding(vectors, index, {number: word for word, number in index.items()}, neighbours)

    def stop_words(self, recipe: str) -> frozenset[str]:
        """TextFooler has its own list; TextBugger and BERT-Attack take NLTK's."""
        nltk = self.root / FILES["stop words"][0]
        return frozenset((packaged.STOP_WORDS if recipe == "textfooler" else nltk).read_text(encoding="utf-8").split())

    def sentence_similarity(self, **parameters):
        from torch_eval.recipes import fast_textattack

        return fast_textattack.SentenceSimilarity(self._encoder(), **parameters)

    @functools.cache
    def _encoder(self):
        import tensorflow_hub

        model = tensorflow_hub.load(str(self.root / "universal-sentence-encoder"))

        def encode(texts):
            vectors = model(texts)
            return (vectors["outputs"] if isinstance(vectors, dict) else vectors).numpy()

        return encode

    def part_of_speech(self, **parameters):
        from torch_eval.recipes import fast_textattack

        return fast_textattack.PartOfSpeech(self._tag(), **parameters)

    @functools.cache
    def _tag(self):
        """What `nltk.pos_tag(words, tagset="universal")` says with the files of this folder."""
        import nltk
        from nltk.tag import PerceptronTagger

        folder = str(self.root / "nltk_data")
        if folder not in nltk.data.path:
            nltk.data.path.append(folder)  # NLTK reads nothing elsewhere
        tagger = PerceptronTagger(loc=str(self.root / TAGGER))
        lines = (self.root / FILES["tagger"][-1]).read_text(encoding="utf-8").splitlines()
        universal = dict(line.split("\t") for line in lines if line.strip())
        return lambda words: [universal.get(fine, "X") for _, fine in tagger.tag(words)]

    def masked_words(self, **parameters):
        from torch_eval.recipes import fast_textattack, packaged_resources

        model, tokenizer = packaged_resources.masked_model(self.root / "bert-base-uncased")
        return fast_textattack.MaskedWords(masked_language_model=model, tokenizer=tokenizer, **parameters)


class PlainPickle(pickle.Unpickler):
    """A pickle of plain values: a file from elsewhere must not run code."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
