"""The victim against TextAttack's own wrapper, which pads everything to the full length."""

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from configs import assets
from configs.errors import UserError
from torch_eval.victim import Victim

LENGTH = 24
TEXTS = ["a fine film .", "dull", "", "an utterly charming , funny and warm piece of work " * 4] * 11


def tiny_bert(folder, labels=2, seed=0):
    """A random BERT classifier with logits that differ clearly between texts."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=labels,
        initializer_range=0.3,
    ))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets.path("minilm")).save_pretrained(folder)
    return folder


def stock_wrapper(folder, length):
    from textattack.models.wrappers import HuggingFaceModelWrapper

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = length
    return HuggingFaceModelWrapper(BertForSequenceClassification.from_pretrained(folder).eval(), tokenizer)


@pytest.mark.parametrize("labels", [2, 3])
def test_same_logits_as_the_stock_wrapper(tmp_path, labels):
    folder = tiny_bert(tmp_path, labels)
    found, expected = Victim(folder, LENGTH)(TEXTS), stock_wrapper(folder, LENGTH)(TEXTS)
    assert found.shape == (len(TEXTS), labels) and found.dtype == torch.float32
    assert expected.std(0).min() > 0.1  # rows differ, so a wrong order shows
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_pairs_are_read_as_two_segments(tmp_path):
    folder = tiny_bert(tmp_path, 3)
    pairs = [("who came ?", text) for text in TEXTS[:7]]
    expected = stock_wrapper(folder, LENGTH)(pairs)
    torch.testing.assert_close(Victim(folder, LENGTH)(pairs), expected, atol=1e-5, rtol=0)
    joined = Victim(folder, LENGTH)([" ".join(pair) for pair in pairs])
    assert not torch.allclose(joined, expected, atol=1e-3)


def test_one_column_in_a_tuple_is_a_single_text(tmp_path):
    victim = Victim(tiny_bert(tmp_path), LENGTH)
    torch.testing.assert_close(victim([(text,) for text in TEXTS]), victim(TEXTS))


def test_texts_that_read_alike_are_classified_once_and_tie_exactly(tmp_path):
    victim = Victim(tiny_bert(tmp_path), LENGTH)
    texts = [text for code in range(0x1F600, 0x1F614) for text in (f"a {chr(code)} film", f"film {code}")]
    rows, forward = [], victim.model.forward
    victim.model.forward = lambda **batch: rows.append(len(batch["input_ids"])) or forward(**batch)
    logits = victim(texts)
    assert sum(rows) == 21  # the 20 unknown characters are one input
    assert torch.equal(logits[::2], logits[:1].expand(20, -1))
    assert len(set(map(tuple, logits[1::2].tolist()))) == 20


def test_broken_directories_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="missing"):
        Victim(tmp_path / "absent", LENGTH)
    folder = tiny_bert(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="not a loadable"):
        Victim(folder, LENGTH)
