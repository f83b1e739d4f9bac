"""Paired tests of two models on the same sentences, and the answer that they give."""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass

from torch_eval.attack import metrics
from torch_eval.report import wording
from torch_eval.report.captions import facts
from torch_eval.report.render import Cell, Row, Table
from torch_eval.report.run_state import Run
from torch_eval.report.scores import Score, titles

LEVEL = 0.05  # a smaller p-value counts as a difference


@dataclass(frozen=True)
class Comparison:
    """Two attacks on the same sentences, of two models or made in two ways: seed to both scores."""

    pairs: dict[int, tuple[Score, Score]]

    @property
    def records(self) -> list[tuple[list[dict], list[dict]]]:
        """The records of both attacks, for each seed."""
        return [(first.records, second.records) for first, second in self.pairs.values()]

    @functools.cached_property
    def test(self) -> metrics.PairedTest:
        """The test over all seeds."""
        return metrics.paired(self.records)

    @property
    def gain(self) -> metrics.Estimate:
        """First accuracy under attack minus the second one, over all seeds."""
        return metrics.gain(self.records)

    @property
    def scores(self) -> list[Score]:
        """All scores that are compared."""
        return [score for pair in self.pairs.values() for score in pair]

    @property
    def group(self) -> int:
        """Number of the first score's comparison group."""
        return self.scores[0].group

    @property
    def stale(self) -> bool:
        """True if a score was made with other settings than the configuration's."""
        return any(score.stale for score in self.scores)

    @property
    def attack(self) -> Cell:
        """Name of the attack, as a table's cell that says whether a score is stale."""
        return Cell(titles(self.scores), "stale" if self.stale else "")

    @property
    def differs(self) -> bool:
        """True if the test finds a difference."""
        return self.test.p < LEVEL

    @property
    def verdict(self) -> int:
        """1 if the first model withstands more, -1 if it withstands less, 0 if the test finds no difference."""
        lead = self.test.only_first - self.test.only_second
        return (lead > 0) - (lead < 0) if self.differs else 0

    def mean_aua(self, side: int) -> float:
        """Mean accuracy under attack of the first (0) or second (1) scores, in per cent."""
        return 100 * statistics.fmean(pair[side].summary.aua.value or 0.0 for pair in self.pairs.values())

    def aua(self, side: int) -> str:
        """`mean_aua` as text, which says where timeouts make it a least value."""
        timeouts = any(pair[side].summary.timeouts for pair in self.pairs.values())
        return f"{'at least ' if timeouts else ''}{self.mean_aua(side):.1f}%"


def comparisons(run: Run, first: str, second: str, recipe: str) -> list[Comparison]:
    """Compare two models under one attack.

    Args:
        run: The run.
        first: Name of the first model.
        second: Name of the second model.
        recipe: The attack.

    Returns:
        One comparison for each comparison group in which both were attacked, group 0 first.
    """
    groups: dict[int, dict[int, tuple[Score, Score]]] = {}
    for seed in run.config.seeds:
        one, other = run.scores.get((seed, first, recipe)), run.scores.get((seed, second, recipe))
        if one and other and one.group == other.group:
            groups.setdefault(one.group, {})[seed] = (one, other)
    return [Comparison(pairs) for _, pairs in sorted(groups.items())]


# --- the answer ----------------------------------------------------------------------------------------------


def answer(run: Run) -> str:
    """Say in one sentence whether the robust ticket withstands more than fine-tuning, and at what price."""
    ticket, dense = run.model_of("robust"), run.model_of("finetune")
    name = f"**{run.task}** ({run.name})"
    if not ticket or not dense:
        return f"{name}: this experiment does not compare a robust ticket with fine-tuning."
    useless = [run.marked_title(model) for model in (ticket, dense) if run.unlearned(model)]
    if useless:
        return f"{name}: no answer, because a model has learned nothing: {' and '.join(useless)}."
    by_recipe = {recipe: comparisons(run, ticket, dense, recipe) for recipe in run.recipes}
    compared = [made[0] for made in by_recipe.values() if made and made[0].group == 0]
    if not compared:
        return f"{name}: no answer yet; `{run.command('attack')}` makes the results that it needs."
    by_verdict = {verdict: [c for c in compared if c.verdict == verdict] for verdict in (1, 0, -1)}
    words = {
        1: "withstands more attacks than the fine-tuned model under",
        0: "shows no clear difference from the fine-tuned model under",
        -1: "withstands fewer attacks than the fine-tuned model under",
    }
    seeds = {seed for comparison in compared for seed in comparison.pairs}
    parts = [f"{words[verdict]} {_listed(group, len(seeds))}" for verdict, group in by_verdict.items() if group]
    pruned = f"{100 * run.sparsity:g}% pruned"
    stale = " **Stale:** made with other settings, models or sentences." if any(c.stale for c in compared) else ""
    return (
        f"{name}, {len(seeds)} seed{'s' * (len(seeds) > 1)}: the robust ticket ({pruned}) {', '.join(parts)}; "
        f"{_price(run, ticket, dense)}.{'' if by_verdict[1] else wording.NO_GAIN}{stale}"
    )


def _listed(group: list[Comparison], seeds: int) -> str:
    """`TextFooler (45.5% of the sentences against 11.5%, p < 0.001) and ...`, with the seeds of one that lacks some."""
    items = [
        f"**{titles(c.scores)}** ({c.aua(0)} of the sentences against {c.aua(1)}, {_relation(c.test.p)}"
        f"{f', {len(c.pairs)} of {seeds} seeds' if len(c.pairs) < seeds else ''})"
        for c in group
    ]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def _price(run: Run, ticket: str, dense: str) -> str:
    """What the ticket loses (or gains) on unchanged sentences, over the seeds that have both accuracies."""
    ours, theirs = ({seed: value for seed, value, _, _ in run.clean(m).seeds} for m in (ticket, dense))
    seeds = ours.keys() & theirs.keys()
    if not seeds:
        return "their accuracies on unchanged sentences are not measured yet"
    after, before = (statistics.fmean(values[seed] for seed in seeds) for values in (ours, theirs))
    points = round(round(after, 1) - round(before, 1), 1)
    if not points:
        return f"it classifies as many unchanged sentences correctly (**{after:.1f}%**)"
    change = f"{abs(points):.1f} points {'more' if points > 0 else 'fewer'}"
    return f"it classifies **{after:.1f}%** of the unchanged sentences correctly instead of {before:.1f}%, {change}"


def _relation(p: float) -> str:
    """`p = 0.012` without a line break."""
    return f"p {'' if p < 0.001 else '= '}{p_text(p)}".replace(" ", "\u00a0")


# --- the table -----------------------------------------------------------------------------------------------


def paired_table(run: Run) -> Table | None:
    """Compare models under every attack.

    The robust ticket (or else the first method) is compared with all others, a transferred one with the baselines too.
    Holm's families of tests are those of `wording.PAIRED`.
    """
    first = "robust" if run.models_of("robust") else run.config.methods[0]
    pairs = [(first, method) for method in run.config.methods if method != first]
    pairs += [("transferred", rival) for rival in ("finetune", "random") if first != "transferred"]
    tests: list[tuple[str, tuple[str, bool], Comparison]] = []  # title, family and comparison of each
    for method, other in dict.fromkeys(pairs):
        for ours, rival, why in matches(run, method, other):
            title = f"**{run.marked_title(ours)}** against **{run.marked_title(rival)}**{why}"
            family = ours, not why or "as many epochs" in why
            tests += [(title, family, c) for recipe in run.recipes for c in comparisons(run, ours, rival, recipe)]
    rows: list[Row] = []
    corrected = _corrected([(family, comparison.test.p) for _, family, comparison in tests])
    for (title, _, comparison), p in zip(tests, corrected):
        rows += [*([title] if title not in rows else []), _row(comparison, p)]
    header = ["Attack", "Pairs", "Only the first right", "Only the second right", "p", "p (Holm)", "Gain in points"]
    scores = [score for _, _, comparison in tests for score in comparison.scores]
    return Table(header, [facts(run, scores), *rows]) if rows else None


def _corrected(tests: list[tuple[tuple[str, bool], float]]) -> list[float]:
    """Correct p-values by Holm's method, each family for itself.

    Args:
        tests: Family and p of each test. A family is a model, and whether its rivals were trained for as many epochs.

    Returns:
        The corrected p of each test, in the same order.
    """
    result = [0.0] * len(tests)
    for family in {family for family, _ in tests}:
        places = [place for place, (other, _) in enumerate(tests) if other == family]
        for place, p in zip(places, metrics.holm([tests[place][1] for place in places])):
            result[place] = p
    return result


def matches(run: Run, method: str, other: str) -> list[tuple[str, str, str]]:
    """Pair the models of two methods, as `wording.PAIRED` says.

    Args:
        run: The run.
        method: Method whose every model is compared.
        other: Method that it is compared with.

    Returns:
        For each pair: the model of `method`, the model of `other`, and the reasons in brackets. There are none where
        each method has one model.
    """
    pairs = list(zip(run.models_of(method), run.models_of(other)))
    if len(pairs) < 2:
        return [(ours, rival, "") for ours, rival in pairs]
    rivals, result = sorted(run.models_of(other), key=run.epochs), []
    for ours, rival in pairs:
        reasons = {rival: ["as many epochs"]}
        for why, measure, sign in (
            ("as much compute", run.passes, 1),
            ("as low a training loss", run.training_loss, -1),
        ):
            needed = measure(ours)
            reached = [
                model
                for model in rivals
                if needed is not None and (value := measure(model)) is not None and sign * value >= sign * needed
            ]
            if reached:
                reasons.setdefault(reached[0], []).append(why)
        result += [(ours, model, f" ({', '.join(why)})") for model, why in reasons.items()]
    return result


def _row(comparison: Comparison, corrected: float) -> list[Cell]:
    test = comparison.test
    each = [
        f"seed {seed}: {p_text(metrics.paired([records]).p)}"
        for seed, records in zip(comparison.pairs, comparison.records)
    ]
    counts = [Cell(str(count)) for count in (test.tested, test.only_first, test.only_second)]
    p = Cell(p_text(test.p), "\n".join(each) if len(each) > 1 else "")
    return [comparison.attack, *counts, p, Cell(p_text(corrected)), Cell(comparison.gain.text(sign="+", nothing="–"))]


def p_text(p: float) -> str:
    """A p-value with three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
