"""InfoBERT (Wang et al. 2021): FreeLB with two regularisers on the information in the embeddings.

The information bottleneck keeps the input's embeddings near each other; the anchored-feature regulariser ties the
tokens that are neither robust nor fragile to the sentence. The public code's version 6, which has both, is followed.
"""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from configs.contract import schema
from mindspore_rt import parallel
from mindspore_rt.cells import float64_ops, noise
from mindspore_rt.cells.bert import BertClassifier
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import adversary
from mindspore_rt.training.objectives import Ascents, WeightUpdate, loss_scale, value
from mindspore_rt.training.optimizer import AdamW, Clear, linear_schedule

WIDTH = 300  # hidden units of the critic


class Critic(nn.Cell):
    """Softplus(w ReLU(W [token; sentence] + b) + c): how well a token's and a sentence's embedding go together.

    W stands in two halves, one for each part, so that scoring all pairs of a chunk repeats no product. It starts as
    PyTorch starts linear layers.
    """

    def __init__(self, hidden: int, seed: int):
        super().__init__(auto_prefix=False)
        random = noise.generator(seed, noise.CRITIC)

        def uniform(name, shape, inputs):
            bound = 1 / math.sqrt(inputs)
            return Parameter(random.uniform(-bound, bound, shape).astype(np.float32), name=f"critic.{name}")

        self.token = uniform("token.weight", (WIDTH, hidden), 2 * hidden)
        self.sentence = uniform("sentence.weight", (WIDTH, hidden), 2 * hidden)
        self.bias = uniform("bias", (WIDTH,), 2 * hidden)
        self.score, self.score_bias = uniform("score.weight", (1, WIDTH), WIDTH), uniform("score.bias", (1,), WIDTH)
        self.product, self.relu = ops.MatMul(transpose_b=True), ops.ReLU()

    def construct(self, tokens, sentences):
        """tokens, sentences (chunks, size, hidden) -> scores (chunks, size, size) of sentence i with token j."""
        chunks, size, hidden = tokens.shape
        token = self.product(tokens.reshape(-1, hidden), self.token).reshape(chunks, 1, size, WIDTH)
        sentence = self.product(sentences.reshape(-1, hidden), self.sentence).reshape(chunks, size, 1, WIDTH)
        both = self.relu(token + sentence + self.bias).reshape(-1, WIDTH)
        return float64_ops.softplus(self.product(both, self.score) + self.score_bias).reshape(chunks, size, size)


def upper_bound(embeddings, partners, shares):
    """The bottleneck: weighted mean over tokens of |e - e'|^2 / 2, e' the embedding of the token's partner.

    embeddings (tokens, hidden); partners (tokens,) int32; shares (tokens,) float32, 0 for padding, their sum is 1.
    """
    distance = embeddings - ops.gather(embeddings, partners, 0)
    return ((distance * distance).sum(-1) * shares).sum() * 0.5


def info_nce(scores, valid):
    """Lower bound of the mutual information of tokens and sentences: mean over the chunks that are not empty.

    scores (chunks, size, size) as `Critic` gives them, pair i on the diagonal; valid (chunks, size), 1 for pairs and 0
    for fillers. In a chunk of N pairs: mean of T(i, i) - log sum_j exp T(i, j), plus log N.
    """
    chunks, size = valid.shape
    likelihood = float64_ops.log_softmax(scores + (valid.reshape(chunks, 1, size) - 1.0) * 1e9)
    own = (likelihood * ops.eye(size, size, ms.float32)).sum(-1)
    count = valid.sum(-1)
    pairs = ops.maximum(count, 1.0)
    bounds = (own * valid).sum(-1) / pairs + ops.log(pairs)
    return bounds.sum() / ops.maximum(ops.cast(count > 0, ms.float32).sum(), 1.0)


def anchors(norms: np.ndarray, lengths: np.ndarray, low: float, high: float) -> np.ndarray:
    """Tokens whose gradient is neither among the small nor among the large ones of their sentence.

    Of a sentence's n tokens in the order of `norms` (batch, length), ranks ceil(n low) to ceil(n high) are kept, the
    last excluded. Returns their places in the flattened batch, int.
    """
    kept = []
    for row, n in enumerate(lengths):
        order = np.argsort(norms[row, :n], kind="stable")
        kept.append(row * norms.shape[1] + order[math.ceil(n * low) : math.ceil(n * high)])
    return np.concatenate(kept)


class InfoBert(Ascents):
    """All weights and the critic, K passes an update with one dropout mask (on a device with fresh ones, see noise.py).
    A pass of `index` and `ascent` minimises (cross entropy + beta bottleneck - alpha InfoNCE) / K; the perturbation
    climbs the first two. Of several workers each has its own pairs, shares and chunks.

    Which tokens are anchored depends on the perturbation's gradient, so a pass takes two graphs: `ascent`, then
    `anchor`, which computes the same forward pass again. The critic is decayed, and left out of the clip.
    """

    def __init__(self, model: BertClassifier, settings: schema.InfoBert, total_steps: int, seed: int, rank: int = 0):
        self.critic = Critic(model.config.hidden_size, seed)
        critic, self.total_steps = list(self.critic.get_parameters()), total_steps
        self.update = WeightUpdate(model, settings, {})
        self.critic_update = AdamW(critic, settings.weight_decay, [True] * len(critic))
        super().__init__(model, settings, seed, rank, [*self.update.parameters, *critic])
        self.anchor = self._compile_anchor()
        self.apply = self._compile_update()

    def _compile_pass(self):
        model, settings, scale = self.model, self.settings, loss_scale(self.model)
        weights, share, assign_add = list(self.update.parameters), 1 / self.settings.ascent_steps, ops.AssignAdd()
        total, count = tuple(self.total), len(weights)

        def loss_of(delta, ids, attention_mask, token_types, targets, draws, partners, shares):
            x = model.inputs(model.embed(ids) + delta, token_types, draws)
            logits = model.classify(model.encode(x, attention_mask, draws), draws)
            adversarial = float64_ops.cross_entropy(logits, targets) * share
            bottleneck = upper_bound(x, partners, shares) * (settings.bottleneck_weight * share)
            return (adversarial + bottleneck) * scale, adversarial, bottleneck

        value_and_grad = ms.value_and_grad(loss_of, 0, weights=weights, has_aux=True)

        @ms.jit
        def one_pass(ids, attention_mask, token_types, targets, delta, draws, partners, shares):
            (_, adversarial, bottleneck), (slope, gradients) = value_and_grad(
                delta, ids, attention_mask, token_types, targets, draws, partners, shares
            )
            for i in range(count):
                assign_add(total[i], gradients[i])
            slope = slope / scale
            climbed = adversary.ascend(delta, slope, settings.ascent_rate, settings.max_norm)
            return adversarial, bottleneck, ops.sqrt((slope * slope).sum(-1)), climbed

        return one_pass

    def _compile_anchor(self):
        model, critic, total, scale = self.model, self.critic, tuple(self.total), loss_scale(self.model)
        factor = self.settings.anchor_weight / self.settings.ascent_steps
        count, assign_add = len(total), ops.AssignAdd()

        def loss_of(ids, attention_mask, token_types, delta, draws, tokens, valid):
            length = delta.shape[1]
            x = model.inputs(model.embed(ids) + delta, token_types, draws)
            sentences = model.encode(x, attention_mask, draws)
            scores = critic(ops.gather(x, tokens, 0), ops.gather(sentences, tokens // length, 0))
            return info_nce(scores, valid) * (-factor * scale)

        value_and_grad = ms.value_and_grad(loss_of, None, weights=self.trained)

        @ms.jit
        def anchor(ids, attention_mask, token_types, delta, draws, tokens, valid):
            loss, gradients = value_and_grad(ids, attention_mask, token_types, delta, draws, tokens, valid)
            for i in range(count):
                assign_add(total[i], gradients[i])
            return loss / scale

        return anchor

    def _compile_update(self):
        update, critic_update, scale = self.update, self.critic_update, loss_scale(self.model)
        total, weights, clear = tuple(self.total), len(self.update.parameters), Clear(self.total)
        average = parallel.average(self.critic_update.parameters)

        @ms.jit
        def apply(rates):
            norm = update(total[:weights], rates)
            critic_update(tuple(g / scale for g in average(total[weights:])), rates)
            clear()
            return norm

        return apply

    def step(self, batch: Batch, index: int) -> dict[str, float]:
        """The figures are the terms of the loss, weighted, averaged over the passes."""
        settings, tensors, delta = self.settings, batch.tensors(), self.start(batch, index)
        draws = self.noise.draw(self.model.noise_shapes(*batch.ids.shape), index)
        lengths = token_counts(batch)
        losses = np.zeros(3)
        for ascent in range(settings.ascent_steps):
            random = noise.generator(self.seed, noise.PAIRS, index, ascent, self.rank)
            pairs = bottleneck_pairs(lengths, batch.ids.shape[1], random)
            adversarial, bottleneck, norms, climbed = self.ascent(*tensors, delta, draws, *pairs)
            tokens = anchors(norms.asnumpy(), lengths, settings.anchor_low, settings.anchor_high)
            chunks = self.chunks(random.permutation(tokens), batch.ids.shape)
            anchor = self.anchor(*tensors[:3], delta, draws, *chunks)
            losses += value(adversarial), value(bottleneck), value(anchor)
            delta = climbed
        rate = settings.learning_rate * linear_schedule(index, self.total_steps, settings.warmup)
        norm = self.apply(self.update.optimizer.rates(rate, index + 1))
        figures = dict(zip(("adversarial_loss", "bottleneck", "anchor"), map(float, losses), strict=True))
        return {**figures, "gradient_norm": value(norm), "learning_rate": rate}

    def chunks(self, tokens: np.ndarray, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`tokens` in chunks of the batch size, (chunks, size) int32, and which are no fillers, float32.

        There are as many chunks as any batch of this shape can fill: one graph is compiled for each shape.
        """
        size, length = shape
        n = np.arange(1, length + 1)
        most = np.ceil(n * self.settings.anchor_high) - np.ceil(n * self.settings.anchor_low)
        padded, valid = (np.zeros((max(1, int(most.max())), size), kind) for kind in (np.int32, np.float32))
        padded.flat[: len(tokens)], valid.flat[: len(tokens)] = tokens, 1
        return Tensor(padded), Tensor(valid)

    def state(self) -> dict[str, Parameter]:
        critic = {p.name: p for p in self.critic.get_parameters()}
        return {**self.model.weights(), **self.update.optimizer.state(), **critic, **self.critic_update.state()}


def token_counts(batch: Batch) -> np.ndarray:
    """Number of tokens of each row, int; 0 for filler rows."""
    return (batch.attention_mask.sum(1) * batch.targets.any(1)).astype(int)


def bottleneck_pairs(lengths: np.ndarray, length: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """For each token of the flattened batch a partner out of the batch's, drawn with replacement, and its share."""
    tokens = np.flatnonzero(np.arange(length) < lengths[:, None])
    partners, shares = np.zeros(lengths.size * length, np.int32), np.zeros(lengths.size * length, np.float32)
    if len(tokens):  # a worker may have no sentence of an epoch's last batch
        partners[tokens], shares[tokens] = random.choice(tokens, len(tokens)), 1 / len(tokens)
    return Tensor(partners), Tensor(shares)
