"""What all tests share: an offline, quiet environment, MindSpore's settings, and a small random model."""

import functools
import os
import signal

import pytest

os.environ.update(GLOG_v="3", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes of one thread each: more would only get in each other's way
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

# A shell starts background jobs with SIGINT ignored, and the commands that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Nobody cuts the power during a test: files need not reach the disk. Child processes still wait for it.
os.fsync = lambda descriptor: None

# Files whose tests take longest, by measured time.
LONGEST = (
    "test_platforms.py",
    "test_demo.py",
    "test_workers.py",
    "test_interruptions.py",
    "test_parallel.py",
    "test_parity.py",
)
FOLDERS = ("end_to_end", "mindspore_rt", "torch_eval", "faults")


@functools.cache
def use_cpu():
    """MindSpore as the command line sets it up: CPU, graph mode."""
    from mindspore_rt.device import use_device

    use_device()


def pytest_collection_modifyitems(items):
    """Put the longest files first: two processes take them in this order, and should end at the same time."""

    def place(item):
        file = LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        folder = next((i for i, name in enumerate(FOLDERS) if name in item.path.parts), len(FOLDERS))
        return file, folder

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if "mindspore_rt" in item.path.parts:
        use_cpu()


@pytest.fixture(scope="session")
def packaged_model():
    """Directory of the packaged BERT."""
    from configs.contract.inputs import assets

    return assets.fetched_folder("minilm")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory, packaged_model):
    """Directory of a random BERT classifier of 2 labels, as transformers saves it, with the packaged tokenizer.

    Its weights are five times as large as BERT's initial ones, so that inputs and errors show in the logits.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.helpers.models import copy_tokenizer

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=30522, initializer_range=0.1, **shape))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # transformers starts them at 0, where a forgotten one would not show
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("tiny_bert")
    model.save_pretrained(folder)
    copy_tokenizer(packaged_model, folder)
    return folder
