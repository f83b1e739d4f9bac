"""Random classifiers of the families that people score, and texts to attack: nothing is downloaded."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from configs.contract.inputs import assets, snippets
from configs.contract.inputs.families import ROBERTAS_PIECES

COLUMN = "sentence"
# Name: classes of model and tokenizer without their endings, and the kind of vocabulary.
ARCHITECTURES = {
    "bert": ("Bert", "Bert", "pieces"),
    "electra": ("Electra", "Electra", "pieces"),
    "roberta": ("Roberta", "Roberta", "bytes"),
    "xlm-roberta": ("XLMRoberta", "XLMRoberta", "unigram"),
    "camembert": ("Camembert", "Camembert", "unigram"),
    "distilbert": ("DistilBert", "DistilBert", "pieces"),
    "albert": ("Albert", "Albert", "unigram"),
    "deberta-v2": ("DebertaV2", "DebertaV2", "unigram"),
    "mpnet": ("MPNet", "MPNet", "pieces"),
    "xlnet": ("XLNet", "XLNet", "unigram"),
    "modernbert": ("ModernBert", None, "bytes"),
    "convbert": ("ConvBert", "ConvBert", "pieces"),
}
PROMISED = tuple(name for name in ARCHITECTURES if name != "convbert")  # those whose exactness is promised
# What families call `intermediate_size`; transformers knows their names of the other sizes.
INTERMEDIATE = {"distilbert": "hidden_dim", "xlnet": "d_inner"}
OWN: dict[str, dict[str, object]] = {  # what else makes a small model of a family what it is in practice
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 16,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "modernbert": {"local_attention": 16, "global_attn_every_n_layers": 2, "initializer_cutoff_factor": 2.0},
    # These count positions from the id of the padding on.
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "mpnet"), {"max_position_embeddings": 514}),
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", **ROBERTAS_PIECES}  # of RoBERTa and of those that took them over
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def snippet_texts(count: int) -> list[str]:
    """Return packaged snippets that the masked language model of BERT-Attack has not seen."""
    splits, _ = snippets.split_snippets()
    return [record[COLUMN] for record in splits["test"][:count]]


def labelled(texts: Sequence[str], logits: Sequence[Sequence[float]]) -> list[dict]:
    """Return texts as examples with the labels that a model of two labels predicts; every fifth gets the other one."""
    predictions = [row.index(max(row)) for row in logits]
    return [
        {COLUMN: text, "label": label if i % 5 < 4 else 1 - label}
        for i, (text, label) in enumerate(zip(texts, predictions))
    ]


def random_classifier(
    folder: Path, family: str, texts: Iterable[str], labels: int = 2, seed: int = 0, **config: object
) -> Path:
    """Write a random classifier with logits that differ clearly between texts, and its tokenizer.

    Args:
        folder: Where it is written.
        family: A name of `ARCHITECTURES`.
        texts: What the vocabulary is made of, where it is not MiniLM's.
        labels: Number of labels.
        seed: Of the weights.
        config: Sizes, named as BERT names them; `TINY` if not given.

    Returns:
        The folder.
    """
    tokenizer, kind = build_tokenizer(family, list(texts)), ARCHITECTURES[family][0]
    config_class = getattr(transformers, f"{kind}Config")
    names = {**config_class.attribute_map, "intermediate_size": INTERMEDIATE.get(family, "intermediate_size")}
    tokens = (
        ("pad", "bos", "eos", "cls", "sep")
        if family in ("roberta", "xlm-roberta", "camembert", "modernbert")
        else ("pad",)
    )
    settings: dict[str, object] = {
        "vocab_size": len(tokenizer),
        "num_labels": labels,
        "initializer_range": 0.3,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in tokens},
        **OWN.get(family, {}),
        **{names.get(name, name): value for name, value in {**TINY, **config}.items()},
    }
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config_class(**settings))
    _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _spread(model: torch.nn.Module) -> None:
    """Make weights of heads large where a family starts them small: its logits would hardly differ."""
    for name, weight in model.named_parameters():
        if name.startswith(("classifier", "logits_proj", "pooler", "head")) and weight.ndim == 2:
            weight.normal_(0, 0.3)


def build_tokenizer(family: str, texts: list[str]) -> PreTrainedTokenizerBase:
    """Build the tokenizer of a family as its own class, or a plain one of the library where it has none."""
    _, kind, vocabulary = ARCHITECTURES[family]
    if vocabulary == "pieces":
        minilm = AutoTokenizer.from_pretrained(assets.fetched_folder("minilm"), trust_remote_code=False)
        if family == "mpnet":
            return _mpnet(minilm)
        return getattr(transformers, f"{kind}TokenizerFast")(tokenizer_object=minilm.backend_tokenizer)
    tokenizer, special = _bytes(texts) if vocabulary == "bytes" else _unigram(texts, family)
    made = getattr(transformers, f"{kind}TokenizerFast") if kind else PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, **special)


def _mpnet(minilm: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """MPNet: BERT's pieces between RoBERTa's tokens."""
    pieces = {"<s>": 0, "<pad>": 1, "</s>": 2, "<mask>": 3, "[UNK]": 4}
    vocabulary = minilm.get_vocab()  # in another order each time
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        pieces.setdefault(piece, len(pieces))
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokens = {**SPECIAL, "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "attention_mask"], **tokens
    )


def _bytes(texts: list[str]) -> tuple[Tokenizer, dict]:
    """Byte-level BPE with RoBERTa's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=4000, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer, {**SPECIAL, "model_input_names": ["input_ids", "attention_mask"]}


def _frequent_pieces(texts: list[str]) -> list[tuple[str, float]]:
    """Return all characters and the most frequent parts of words, 3,000 in all, with their log-probabilities.

    The library's own trainer of Unigram gives another vocabulary each time.
    """
    words = Counter(f"▁{word}" for text in texts for word in unicodedata.normalize("NFKC", text).split())
    counts = Counter[str]()
    for word, count in words.items():
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            counts[word[start:end]] += count
    pieces = sorted(counts.items(), key=lambda item: (len(item[0]) > 1, -item[1] * len(item[0]), item[0]))[:3000]
    total = sum(count for _, count in pieces)
    return [(piece, math.log(count / total)) for piece, count in pieces]


def _unigram(texts: list[str], family: str) -> tuple[Tokenizer, dict]:
    """SentencePiece's Unigram, with the special tokens and the order of the family."""
    roberta = family in ("xlm-roberta", "camembert")
    cls, sep, mask = ("<s>", "</s>", "<mask>") if roberta else ("[CLS]", "[SEP]", "[MASK]")
    if family == "xlnet":
        cls, sep, mask = "<cls>", "<sep>", "<mask>"
    special = [cls, "<pad>", sep, "<unk>", mask]
    pieces = [(piece, score) for piece, score in _frequent_pieces(texts) if piece not in special]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special)
    ids = [(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))]
    single, pair = f"{cls} $A {sep}", f"{cls} $A {sep} $B:1 {sep}:1"
    if roberta:
        pair = f"{cls} $A {sep} {sep} $B {sep}"
    if family == "xlnet":
        single, pair = f"$A {sep} {cls}:2", f"$A {sep} $B:1 {sep}:1 {cls}:2"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    own = {"bos_token": cls, "eos_token": sep, "cls_token": cls, "sep_token": sep, "mask_token": mask}
    return tokenizer, {**SPECIAL, **own}
