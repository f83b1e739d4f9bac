"""InfoBERT (Wang et al. 2021): FreeLB with two regularisers on the information in the embeddings.

The information bottleneck limits the information about the input in its embeddings. The anchored-feature regulariser
raises the mutual information of the sentence embedding and the embeddings of tokens that are neither robust nor
fragile. This follows version 6 of the public code, which has both regularisers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, mutable, nn, ops

from configs.contract.experiment import schema
from mindspore_rt import parallel
from mindspore_rt.cells import backend, float64_ops, noise
from mindspore_rt.cells.encoder import Draws
from mindspore_rt.data.batches import Batch
from mindspore_rt.training import adversary
from mindspore_rt.training.objectives import FreeLB, fetch
from mindspore_rt.training.optimizer import Clear, adamw

WIDTH = 300  # hidden units of the critic


class Critic(nn.Cell):
    """Scores how well the embeddings t of a token and s of a sentence match: softplus(w ReLU(W [t; s] + b) + c).

    W is kept in two halves, one for each embedding, so that scoring all pairs of a chunk repeats no product. All
    parameters start as those of PyTorch's linear layers do.

    Args:
        hidden: Size of the embeddings.
        seed: Seed of the initial values.
    """

    def __init__(self, hidden: int, seed: int) -> None:
        super().__init__(auto_prefix=False)
        random = noise.generator(seed, noise.CRITIC)

        def uniform(name: str, shape: tuple[int, ...], inputs: int) -> Parameter:
            bound = 1 / math.sqrt(inputs)
            return Parameter(random.uniform(-bound, bound, shape).astype(np.float32), name=f"critic.{name}")

        self.token = uniform("token.weight", (WIDTH, hidden), 2 * hidden)
        self.sentence = uniform("sentence.weight", (WIDTH, hidden), 2 * hidden)
        self.bias = uniform("bias", (WIDTH,), 2 * hidden)
        self.score, self.score_bias = uniform("score.weight", (1, WIDTH), WIDTH), uniform("score.bias", (1,), WIDTH)
        self.product, self.relu = ops.MatMul(transpose_b=True), ops.ReLU()

    def construct(self, tokens: Tensor, sentences: Tensor) -> Tensor:
        """Score sentence i with token j, (chunks, size, size), for two tensors (chunks, size, hidden)."""
        chunks, size, hidden = tokens.shape
        token = self.product(tokens.reshape(-1, hidden), self.token).reshape(chunks, 1, size, WIDTH)
        sentence = self.product(sentences.reshape(-1, hidden), self.sentence).reshape(chunks, size, 1, WIDTH)
        both = self.relu(token + sentence + self.bias).reshape(-1, WIDTH)
        return float64_ops.softplus(self.product(both, self.score) + self.score_bias).reshape(chunks, size, size)


def upper_bound(embeddings: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Return the bottleneck, the mean over tokens of |e - e'|^2 / 2 with e' the embedding of the token's partner.

    Args:
        embeddings: (tokens, hidden) float32.
        partners: (tokens,) int32, the index of each token's partner.
        shares: (tokens,) float32, weights of the mean: 0 for padding, their sum is 1.
    """
    distance = embeddings - ops.gather(embeddings, partners, 0)
    return ((distance * distance).sum(-1) * shares).sum() * 0.5


def info_nce(scores: Tensor, valid: Tensor) -> Tensor:
    """Return the InfoNCE lower bound of the mutual information of tokens and sentences.

    In a chunk of N pairs it is the mean of T(i, i) - log sum_j exp T(i, j), plus log N; the result is the mean over
    the chunks that are not empty.

    Args:
        scores: T, (chunks, size, size) from `Critic`, with the pairs on the diagonal.
        valid: (chunks, size) float32, 1 for pairs and 0 for fillers.
    """
    chunks, size = valid.shape
    likelihood = float64_ops.log_softmax(scores + (valid.reshape(chunks, 1, size) - 1.0) * 1e9)
    own = (likelihood * ops.eye(size, size, ms.float32)).sum(-1)
    count = valid.sum(-1)
    pairs = ops.maximum(count, 1.0)
    bounds = (own * valid).sum(-1) / pairs + ops.log(pairs)
    return bounds.sum() / ops.maximum(ops.cast(count > 0, ms.float32).sum(), 1.0)


def by_norm(norms: Tensor, attention_mask: Tensor) -> Tensor:
    """Sort the tokens of each sentence by the norms of their gradients, padding last.

    Comparisons of all pairs are as exact on every device as a stable sort, which not every device has.

    Args:
        norms: Norms of the gradients, (batch, length) float32.
        attention_mask: (batch, length) float32, 1 for tokens and 0 for padding.

    Returns:
        (batch * length,) int32: at row * length + rank the index into the flattened batch of the token of that rank.
    """
    batch, length = norms.shape
    norms, places = norms + (1.0 - attention_mask) * 1e30, ops.arange(length)
    own, other = norms.reshape(batch, length, 1), norms.reshape(batch, 1, length)
    earlier = ops.logical_and(own == other, places.reshape(1, 1, length) < places.reshape(1, length, 1))
    ranks = ops.cast(ops.logical_or(other < own, earlier), ms.float32).sum(-1)
    has_rank = ops.cast(ranks.reshape(batch, 1, length) == places.reshape(1, length, 1), ms.float32)
    order = ops.minimum((has_rank * places).sum(-1), length - 1)  # norms that are not finite have no rank
    return (ops.cast(order, ms.int32) + ops.arange(batch).reshape(batch, 1) * length).reshape(-1)


def anchors(lengths: np.ndarray, length: int, low: float, high: float) -> np.ndarray:
    """Select the ranks of tokens whose gradient is neither among the smallest nor among the largest of the sentence.

    Args:
        lengths: Number of tokens of each sentence, (batch,).
        length: Length of a row.
        low: Of n tokens sorted by norm, those from rank ceil(n low) on are selected.
        high: Those below rank ceil(n high) are.

    Returns:
        Indices into what `by_norm` returns, int.
    """
    return np.concatenate(
        [row * length + np.arange(math.ceil(n * low), math.ceil(n * high)) for row, n in enumerate(lengths)]
    )


class InfoBert(FreeLB):
    """Adversarial training of all weights and of the critic.

    Each of the K passes minimises (cross entropy + beta bottleneck - alpha InfoNCE) / K; the perturbation ascends the
    first two terms. The passes share one dropout mask.

    Which tokens are anchored depends on the gradient of the perturbation. So a pass takes two graphs: `ascent`, then
    `anchor`, which is given the order of the tokens by that gradient and computes the same forward pass again. The
    critic has weight decay, but its gradients are not clipped. Each worker has its own pairs, shares and chunks.
    """

    settings: schema.InfoBertTraining

    def build(self) -> None:
        """Compile the graphs of a pass, of its anchored tokens and of the update."""
        self.critic = Critic(self.model.config.hidden_size, self.seed)
        critic = list(self.critic.get_parameters())
        self.critic_update = adamw(critic, self.settings.weight_decay, [True] * len(critic))
        self.prepare_passes([*self.model.weights().values(), *critic])
        self.anchor, self.apply = self._compile_anchor(), self._compile_update()

    def _compile_pass(self) -> Callable:
        model, settings, scale = self.model, self.settings, self.loss_scale
        weights, share, assign_add = list(model.weights().values()), 1 / self.settings.ascent_steps, ops.AssignAdd()
        sums, count = tuple(self.gradient_sums), len(weights)

        def loss_of(
            delta: Tensor,
            ids: Tensor,
            attention_mask: Tensor,
            token_types: Tensor,
            targets: Tensor,
            draws: Draws,
            partners: Tensor,
            shares: Tensor,
        ) -> tuple[Tensor, Tensor, Tensor]:
            x = model.inputs(model.embed(ids) + delta, token_types, draws)
            logits = model.classify(model.encode(x, attention_mask, draws), draws)
            adversarial = float64_ops.cross_entropy(logits, targets) * share
            bottleneck = upper_bound(x, partners, shares) * (settings.bottleneck_weight * share)
            return (adversarial + bottleneck) * scale(), adversarial, bottleneck

        value_and_grad = ms.value_and_grad(loss_of, 0, weights=weights, has_aux=True)

        @backend.jit
        def one_pass(
            ids: Tensor,
            attention_mask: Tensor,
            token_types: Tensor,
            targets: Tensor,
            delta: Tensor,
            draws: Draws,
            partners: Tensor,
            shares: Tensor,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            (_, adversarial, bottleneck), (slope, gradients) = value_and_grad(
                delta, ids, attention_mask, token_types, targets, draws, partners, shares
            )
            for i in range(count):
                assign_add(sums[i], gradients[i])
            slope = slope / scale()
            ascended = adversary.ascend(delta, slope, settings.ascent_rate, settings.max_norm)
            return adversarial, bottleneck, by_norm(ops.sqrt((slope * slope).sum(-1)), attention_mask), ascended

        return one_pass

    def _compile_anchor(self) -> Callable:
        model, critic, sums, scale = self.model, self.critic, tuple(self.gradient_sums), self.loss_scale
        factor = self.settings.anchor_weight / self.settings.ascent_steps
        count, assign_add = len(sums), ops.AssignAdd()

        def loss_of(
            ids: Tensor,
            attention_mask: Tensor,
            token_types: Tensor,
            delta: Tensor,
            draws: Draws,
            tokens: Tensor,
            valid: Tensor,
        ) -> Tensor:
            length = delta.shape[1]
            x = model.inputs(model.embed(ids) + delta, token_types, draws)
            sentences = model.encode(x, attention_mask, draws)
            scores = critic(ops.gather(x, tokens, 0), ops.gather(sentences, tokens // length, 0))
            return info_nce(scores, valid) * (-factor * scale())

        value_and_grad = ms.value_and_grad(loss_of, None, weights=self.trained)

        @backend.jit
        def anchor(
            ids: Tensor,
            attention_mask: Tensor,
            token_types: Tensor,
            delta: Tensor,
            draws: Draws,
            order: Tensor,
            places: Tensor,
            valid: Tensor,
        ) -> Tensor:
            tokens = ops.gather(order, places, 0)
            loss, gradients = value_and_grad(ids, attention_mask, token_types, delta, draws, tokens, valid)
            for i in range(count):
                assign_add(sums[i], gradients[i])
            return loss / scale()

        return anchor

    def _compile_update(self) -> Callable:
        update, critic_update, scale, vote = self.update, self.critic_update, self.loss_scale, self.vote
        sums, weights, clear = tuple(self.gradient_sums), len(self.update.parameters), Clear(self.gradient_sums)
        average = parallel.average(self.critic_update.parameters)

        @backend.jit
        def apply(losses: tuple, rates: tuple, ballot: tuple) -> Tensor:
            factor_of_loss, critic_gradients = scale(), average(sums[weights:])
            critic_norms = (critic_update.norm(critic_gradients),) if scale.dynamic else ()
            norm, overflow = update(sums[:weights], rates, critic_norms)
            critic_update(critic_gradients, rates, 1.0 / factor_of_loss, None, overflow)
            clear()
            return ops.stack((*losses, norm, *vote(ballot), *scale.adjust(overflow)))

        return apply

    def step(self, batch: Batch, index: int, asked: bool = False) -> dict[str, float]:
        """Make one update; returns the weighted terms of the loss, averaged over the passes, among the figures."""
        settings, tensors, delta = self.settings, batch.tensors(), self.start(batch, index)
        draws, lengths = self.draws(batch, index), token_counts(batch)
        losses: list[Tensor] = []
        for ascent in range(settings.ascent_steps):
            random = noise.generator(self.seed, noise.PAIRS, index, ascent, self.rank)
            pairs = bottleneck_pairs(lengths, batch.ids.shape[1], random)
            adversarial, bottleneck, order, ascended = self.ascent(*tensors, delta, draws, *pairs)
            places = anchors(lengths, batch.ids.shape[1], settings.anchor_low, settings.anchor_high)
            chunks = self.chunks(random.permutation(places), batch.ids.shape)
            losses += adversarial, bottleneck, self.anchor(*tensors[:3], delta, draws, order, *chunks)
            delta = ascended
        rate = self.learning_rate(index)
        rates = self.update.optimizer.rates(rate, index + 1)
        values = fetch(self.apply(mutable(tuple(losses)), rates, self.vote.ballot(asked)))
        sums = [sum(values[i : len(losses) : 3]) for i in range(3)]
        names = ("adversarial_loss", "bottleneck", "anchor", "gradient_norm", *self.vote.names)
        return {**self.loss_scale.figures(names, [*sums, *values[len(losses) :]]), "learning_rate": rate}

    def chunks(self, places: np.ndarray, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Divide the selected places into chunks of the batch size.

        There are as many chunks as any batch of this shape can fill, so that one graph is compiled for each shape.

        Args:
            places: Indices into what `by_norm` returns.
            shape: Rows and length of the batch.

        Returns:
            Places (chunks, size) int32, padded with zeros, and 1.0 for places or 0.0 for padding, of the same shape.
        """
        size, length = shape
        n = np.arange(1, length + 1)
        most = np.ceil(n * self.settings.anchor_high) - np.ceil(n * self.settings.anchor_low)
        padded, valid = (np.zeros((max(1, int(most.max())), size), kind) for kind in (np.int32, np.float32))
        padded.flat[: len(places)], valid.flat[: len(places)] = places, 1
        return Tensor(padded), Tensor(valid)

    def state(self) -> dict[str, Parameter]:
        """Return the weights, the critic, the moments of both and the loss scale."""
        critic = {p.name: p for p in self.critic.get_parameters()}
        return {**super().state(), **critic, **self.critic_update.state()}


def token_counts(batch: Batch) -> np.ndarray:
    """Count the tokens of each row, int; 0 for filler rows."""
    return (batch.attention_mask.sum(1) * batch.targets.any(1)).astype(int)


def bottleneck_pairs(lengths: np.ndarray, length: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw the partners of the bottleneck: for each token one of the batch's tokens, with replacement.

    Args:
        lengths: Number of tokens of each row.
        length: Length of a row.
        random: Generator of the draw.

    Returns:
        Partners (rows * length,) int32 and shares, float32: 1 / (number of tokens), 0 for padding.
    """
    tokens = np.flatnonzero(np.arange(length) < lengths[:, None])
    partners, shares = np.zeros(lengths.size * length, np.int32), np.zeros(lengths.size * length, np.float32)
    if len(tokens):  # a worker may have no sentence of an epoch's last batch
        partners[tokens], shares[tokens] = random.choice(tokens, len(tokens)), 1 / len(tokens)
    return Tensor(partners), Tensor(shares)
