"""Make the masked language model of BERT-Attack, once, in set-up, from packaged text only.

Training starts from the 2-layer BERT of the `mlm` asset, a masked language model. It was fine-tuned for sparse
retrieval, after which it finds 0.5% of hidden word pieces. Some minutes of masked-word training on the `snippets` asset
(movie reviews, Amazon reviews, tweets, editorials) undo this. Movie snippets whose hash is below `snippets.MLM_UNSEEN`
are never trained on: some measure the result, and the others may be attacked.

The result is a Hugging Face directory with `mlm.json`: top-1, steps, seconds, sources, hash of the weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoTokenizer, BertForMaskedLM, PreTrainedTokenizerBase
from transformers.utils import logging

from configs.contract.basics.files import file_hash, whole_directory, write_json
from configs.contract.inputs import assets, snippets
from torch_eval.assets.packaged import MLM_SEED as SEED
from torch_eval.assets.packaged import MLM_STEPS as STEPS
from torch_eval.assets.packaged import mlm_folder

TEXTS = ("movieReviewSnippets", "amazonReviewSnippets", "nytEditorialSnippets", "tweets")
BATCH, RATE, WARMUP, LENGTH = 64, 3e-3, 0.08, 64
MASKED, MEASURED_MASKED = 0.2, 0.15  # share of pieces hidden in training and in measuring
NEVER = -1e4  # logit bias of pieces that the training text does not hold
FIRST_WORD = 1996  # "the": below it stand special, unused and single-character pieces
THREADS = 1  # one repeats to the bit; two are 15% faster on idle cores and ten times slower on busy ones


def build() -> None:
    """Train the model and write it into its folder."""
    started = time.time()
    logging.set_verbosity_error()
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.manual_seed(SEED)
    source = assets.fetched_folder("mlm")
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    # Without dropout: fewer than three passes over the text are too few to overfit.
    model = BertForMaskedLM.from_pretrained(source, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    seen, measured = (tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"] for texts in read_texts())
    train(model, tokenizer, seen)
    top1 = measure(model, tokenizer, measured)
    torch.set_num_threads(threads)

    with whole_directory(mlm_folder(), replace=False) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_json(
            temporary / "mlm.json",
            {
                "top1": round(top1, 4),
                "measured": f"{MEASURED_MASKED:.0%} of the pieces of {len(measured)} unseen snippets",
                "steps": STEPS,
                "batch": BATCH,
                "seed": SEED,
                "seconds": round(time.time() - started, 1),
                "start": assets.ASSETS["mlm"].package,
                "text": f"{assets.ASSETS['snippets'].package}: {', '.join(TEXTS)}",
                "sha256": file_hash(temporary / "model.safetensors"),
            },
        )


def read_texts() -> tuple[list[str], list[str]]:
    """Return the texts to train on, and movie snippets to measure with."""
    seen, measured = [], []
    for name in TEXTS:
        for line in snippets.rated_texts(f"hutto_ICWSM_2014/{name}_GroundTruth.txt"):
            text = line.split("\t", 2)[2]
            if name != TEXTS[0] or snippets.text_hash(text) >= snippets.MLM_UNSEEN:
                seen.append(text)
            elif snippets.text_hash(text) < snippets.MLM_MEASURED:
                measured.append(text)
    return seen, measured


def train(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> None:
    """Train on hidden pieces for `STEPS` steps. The softmax is over the pieces that occur in the text, half of all."""
    pieces = torch.unique(torch.tensor([piece for row in rows for piece in row]))
    target = torch.full((len(tokenizer),), -1).index_copy_(0, pieces, torch.arange(len(pieces)))
    head, generator = model.cls.predictions, torch.Generator().manual_seed(SEED)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01, fused=True)
    warmup = WARMUP * STEPS
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (STEPS - step) / (STEPS - warmup))
    )
    model.train()
    batches: Iterator[list[list[int]]] = iter(())
    progress = tqdm(range(STEPS), desc="masked language model for BERT-Attack", unit="step")
    for step in progress:
        batch = next(batches, None)
        if batch is None:
            batches = iter(shuffled_batches(rows, generator))
            batch = next(batches)
        hidden_ids, hidden, labels = hide(pad(batch), MASKED, tokenizer, generator, disguise=True)
        states = model.bert(hidden_ids, attention_mask=(hidden_ids != tokenizer.pad_token_id).long())[0]
        logits = head.transform(states[hidden]) @ head.decoder.weight[pieces].T + head.decoder.bias[pieces]
        loss = cross_entropy(logits, target[labels])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item():.2f}")
    with torch.no_grad():
        head.decoder.bias[target < 0] = NEVER
    model.eval()


def shuffled_batches(rows: list[list[int]], generator: torch.Generator) -> list[list[list[int]]]:
    """Return the batches of one epoch in random order, each of rows of similar length, which need little padding."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    batches = []
    for start in range(0, len(order), 32 * BATCH):
        near = sorted((rows[i] for i in order[start : start + 32 * BATCH]), key=len)
        batches += [near[i : i + BATCH] for i in range(0, len(near), BATCH)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def pad(rows: list[list[int]]) -> torch.Tensor:
    """Return ids (rows, longest row), padded with 0, the id of [PAD]."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def hide(
    ids: torch.Tensor,
    share: float,
    tokenizer: PreTrainedTokenizerBase,
    generator: torch.Generator,
    disguise: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Replace a random share of the pieces by [MASK].

    Args:
        ids: (rows, length) int64.
        share: Share of the pieces that is hidden, special ones apart.
        tokenizer: Has the id of [MASK] and the special ids.
        generator: Generator of the random choice.
        disguise: Leave a tenth of the chosen pieces as they are and replace another tenth by random ones, as in BERT's
            own training. BERT-Attack asks for candidates without masking the word.

    Returns:
        The new ids (rows, length), the mask of chosen places (rows, length) bool, and the pieces that were there.
    """
    special = torch.tensor(tokenizer.all_special_ids)
    hidden = (torch.rand(ids.shape, generator=generator) < share) & ~torch.isin(ids, special)
    changed = ids.masked_fill(hidden, tokenizer.mask_token_id)
    if disguise:
        chance = torch.rand(ids.shape, generator=generator)
        random = torch.randint(FIRST_WORD, len(tokenizer), ids.shape, generator=generator)
        changed = torch.where(hidden & (chance < 0.1), ids, changed)
        changed = torch.where(hidden & (chance > 0.9), random, changed)
    return changed, hidden, ids[hidden]


@torch.inference_mode()
def measure(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]]) -> float:
    """Return the share of hidden pieces that the model finds at first guess."""
    generator, right, total = torch.Generator().manual_seed(SEED), 0, 0
    for start in range(0, len(rows), BATCH):
        hidden_ids, hidden, labels = hide(pad(rows[start : start + BATCH]), MEASURED_MASKED, tokenizer, generator)
        logits = model(hidden_ids, attention_mask=(hidden_ids != tokenizer.pad_token_id).long()).logits
        right, total = right + int((logits[hidden].argmax(1) == labels).sum()), total + len(labels)
    return right / total
