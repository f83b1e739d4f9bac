"""The one list of prunable matrices."""

import math

from transformers import BertConfig, BertForSequenceClassification

from configs.contract.inputs.matrices import prunable_shapes


def test_bert_base_has_the_papers_matrices():
    shapes = prunable_shapes(layers=12, hidden=768, intermediate=3072)
    assert len(shapes) == 73
    assert sum(math.prod(s) for s in shapes.values()) == 85_524_480


def test_names_and_shapes_are_those_of_transformers():
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    state = BertForSequenceClassification(config).state_dict()
    linear = {
        name: tuple(w.shape)
        for name, w in state.items()
        if w.ndim == 2 and "embeddings" not in name and "classifier" not in name
    }
    assert prunable_shapes(2, 16, 24) == linear
