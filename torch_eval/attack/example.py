"""The attack of one example, and the record that is written of it.

Every example is attacked by itself: seeded by the run's seed and its own index, with TextAttack's caches empty. Its
result depends neither on the number of workers nor on where a run was resumed.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.contract.basics.errors import UserError
from torch_eval.recipes import recipes
from torch_eval.recipes.budget import OutOfBudget, time_limit

if TYPE_CHECKING:
    from textattack import Attack
    from textattack.attack_results import AttackResult
    from textattack.goal_function_results import GoalFunctionResult
    from textattack.shared import AttackedText

OUTCOMES = {"SuccessfulAttackResult": "success", "FailedAttackResult": "failure", "SkippedAttackResult": "skipped"}
# A score differs by rounding when its text is classified in another batch, and more with the 8 or 11 bits of mantissa
# of bfloat16 and float16.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


def attack_text(
    attack: Attack,
    spec: recipes.Spec,
    seed: int,
    index: int,
    example: dict,
    max_seconds: float | None = None,
    source: str = "the texts",
    text_type: type[AttackedText] | None = None,
) -> dict:
    """Attack one example and return its record.

    Args:
        attack: What `recipes.build` returned for `spec`.
        spec: The recipe, and the columns that it reads and changes.
        seed: Seed of the run.
        index: Index of the example in the data.
        example: Columns and `label` of the example.
        max_seconds: Budget of wall-clock time in seconds; beyond it the outcome is a timeout.
        source: File of the example, for messages.
        text_type: Class of the text; `attacked_text.Text` by default.

    Raises:
        CannotRun: The recipe lacks something that it loads only now.
        UserError: TextAttack fails on this example; the message names its line.
    """
    from textattack.shared.utils import set_seed

    from torch_eval.recipes.attacked_text import Text

    started, processor = time.perf_counter(), time.process_time()
    bounded = _reset(attack)
    set_seed(example_seed(seed, index))
    try:
        text = (text_type or Text)(OrderedDict((column, example[column]) for column in spec.columns))
        try:
            with time_limit(max_seconds):
                result = attack.attack(text, example["label"])
            record = as_record(index, result, spec.max_queries)
        except OutOfBudget:
            record = _out_of_budget(attack, index, text, example["label"])
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise _failure(error, spec.recipe, f"{source}, line {index + 1}", index) from error
    if any(part.bound_reached for part in bounded):
        record["bound"] = "candidates"
    seconds = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - processor}
    return {**record, **{name: round(value, 3) for name, value in seconds.items()}}


def _reset(attack: Attack) -> list[Any]:
    """Let an attack forget the last example; return its transformations that say whether a bound cut them short."""
    attack.clear_cache()
    attack.goal_function.num_queries = 0
    parts = getattr(attack.transformation, "transformations", [attack.transformation])
    bounded = [part for part in parts if hasattr(part, "bound_reached")]
    for part in bounded:
        part.bound_reached = False
    return bounded


def _failure(error: Exception, recipe: str, where: str, index: int) -> UserError:
    """Return what an error of TextAttack on an example means: a recipe that cannot run here, or a bad example."""
    if recipe in recipes.NEEDS and (isinstance(error, (ImportError, OSError)) or type(error) is LookupError):
        return recipes.cannot_run(recipe, error)  # NLTK raises a bare LookupError
    return UserError(
        f"{where}: {recipe} fails on this example, index {index} ({type(error).__name__}: {error}); take it out of the "
        f"data and run prepare again under another name=..., or leave {recipe} out of attack.recipes"
    )


def example_seed(seed: int, index: int) -> int:
    """Return 32 bits that differ for every example of every run, however near their numbers are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:4], "big")


def as_record(index: int, result: AttackResult, max_queries: int | None = None) -> dict:
    """Return an attack result as JSON values; scores are probabilities of the true label.

    A failure that has used up all its queries is a timeout: the attack might have succeeded with more.
    """
    outcome = OUTCOMES[type(result).__name__]
    if outcome == "failure" and max_queries is not None and result.num_queries >= max_queries:
        outcome = "timeout"
    return _record(index, outcome, result.num_queries, result.original_result, result.perturbed_result)


def _out_of_budget(attack: Attack, index: int, text: AttackedText, label: int) -> dict:
    """Return the record of an attack that was stopped. What it had changed by then is lost; the text counts as it was.

    A text that is misclassified from the start is skipped as without a budget, however soon the budget ended.
    """
    goal = attack.goal_function
    queries = goal.num_queries
    before, _ = goal.init_attack_example(text, label)
    outcome = "timeout" if before.output == label else "skipped"
    return _record(index, outcome, max(queries, goal.num_queries), before, before)


def _record(index: int, outcome: str, queries: int, before: GoalFunctionResult, after: GoalFunctionResult) -> dict:
    label = before.ground_truth_output
    return {
        "index": index,
        "label": label,
        "outcome": outcome,
        "queries": queries,
        "original": columns_of(before.attacked_text),
        "perturbed": columns_of(after.attacked_text),
        "original_prediction": before.output,
        "perturbed_prediction": after.output,
        "original_score": round(float(before.raw_output[label]), 6),
        "perturbed_score": round(float(after.raw_output[label]), 6),
        "words_changed": len(after.attacked_text.attack_attrs["modified_indices"]),
        "words": len(before.attacked_text.words),
    }


def columns_of(text: AttackedText) -> dict[str, str]:
    """Return the columns of a text by name."""
    values = text.tokenizer_input
    return dict(zip(text.column_labels, (values,) if isinstance(values, str) else values))


def verify(
    record: dict, spec: recipes.Spec, example: dict, probabilities: Sequence[Sequence[float]], dtype: str
) -> None:
    """Check that a record is of its example and that its texts have the scores that it states.

    Args:
        record: What `attack_text` returned.
        spec: Says which columns may have changed.
        example: Columns and `label` of the example.
        probabilities: The victim's probabilities for the record's original and perturbed text, in this order.
        dtype: Number type of the victim.

    Raises:
        UserError: The record is wrong; the message names the example.
    """
    wrong = None
    protected = [column for column in spec.columns if column not in spec.changeable]
    if record["label"] != example["label"]:
        wrong = f"its label is {example['label']}, {record['label']} was attacked"
    elif any(record[text].keys() != set(spec.columns) for text in ("original", "perturbed")):
        wrong = f"its columns are not {', '.join(spec.columns)}"
    elif any(record["original"][column] != example[column] for column in spec.columns):
        wrong = "another text was attacked"
    elif changed := [column for column in protected if record["perturbed"][column] != example[column]]:
        wrong = f"the protected column {changed[0]} was changed"
    for when, scores in zip(("original", "perturbed"), probabilities):
        near = max(scores) - scores[record[f"{when}_prediction"]]
        off = abs(scores[record["label"]] - record[f"{when}_score"])
        if not wrong and not max(near, off) <= TOLERANCE[dtype]:
            wrong = f"its {when} text does not have the score that was written down"
    if wrong:
        raise UserError(
            f"{spec.recipe}, example of index {record['index']} (line {record['index'] + 1}): {wrong}; this is a fault "
            f"of the program: please report it with this text: {example}"
        )
