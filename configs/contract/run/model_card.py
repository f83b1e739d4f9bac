"""The README.md of an exported model, in the form of the Hugging Face hub: a head of metadata, then what a reader asks.

Training writes it, and so do the tools that put a model on the hub, then with the results of its attacks. It holds no
time, path or machine: the same training writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.contract.basics import markdown
from configs.contract.experiment.methods import METHODS
from configs.contract.experiment.model_id import ModelId
from configs.contract.experiment.schema import Experiment
from configs.contract.inputs import hub
from configs.contract.inputs.tasks import TASKS, task_of

FILE = "README.md"
APACHE = ("packaged", "bert-base-uncased", "google-bert/bert-base-uncased")  # base models under Apache-2.0
RESULTS = "## Robustness"  # the part that scoring adds


@dataclass(frozen=True)
class Result:
    """One figure of an attack, or the accuracy on unchanged texts.

    Attributes:
        name: Clean or Aua.
        value: From 0 to 1.
        attack: Name of the attack; None for unchanged texts.
        resources: Where the word lists and encoders of the attack come from.
        texts: Number of texts.
    """

    name: str
    value: float
    attack: str | None
    resources: str | None
    texts: int

    @property
    def title(self) -> str:
        """Name of the figure with what it is about."""
        return f"{self.name}, {self.attack}, {self.resources} resources" if self.attack else f"{self.name}, test set"


def card(config: Experiment, model: ModelId, seed: int, labels: Sequence[str], results: Sequence[Result] = ()) -> str:
    """Write the card of a model.

    Args:
        config: Experiment that trained it.
        model: Which of its models.
        seed: Seed of the training.
        labels: Names of the labels, in the order of their numbers.
        results: What scoring has measured.
    """
    from huggingface_hub import EvalResult, ModelCardData  # takes time to load

    source = TASKS[config.task].hub
    data = source.id if source and not config.data.train else None
    title = f"{model}-{config.task}"
    facts = ModelCardData(
        language=None if config.task == "custom" else "en",  # nobody states that of the user's own data
        license="apache-2.0" if config.model in APACHE else "other",
        library_name="transformers",
        pipeline_tag="text-classification",
        base_model=base_model(config.model),
        datasets=[data] if data else None,
        tags=["robustness", "lottery-ticket", "pruning", "textattack"],
        model_name=title if results else None,
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_type=data or config.task,
                dataset_name=config.task,
                dataset_config=source.config if source and data else None,
                metric_type="accuracy",
                metric_value=round(result.value, 4),
                metric_name=result.title,
            )
            for result in results
        ]
        or None,
    )
    return f"---\n{facts.to_yaml()}\n---\n\n{_body(config, model, seed, labels)}{_table(results)}"


def base_model(name: str) -> str | None:
    """Return the name on the hub of an experiment's model, without its revision; None for a directory."""
    if name == "packaged" or not hub.NAME.fullmatch(name) or Path(name).exists():
        return None
    return hub.model_key(name)[0]


def _body(config: Experiment, model: ModelId, seed: int, labels: Sequence[str]) -> str:
    method = METHODS[model.method]
    step = f"; a copy after {model.snapshot} updates" if model.snapshot is not None else ""
    base = base_model(config.model) or Path(config.model).name
    base = "all-MiniLM-L6-v2 as packaged on PyPI" if config.model == "packaged" else base
    columns = "text, pair" if len(task_of(config).columns) == 2 else "text"
    rows = {
        "Method": f"{method.title}: {method.note}{_pruned(config, model)}{step}",
        "Base model": base + (f", first {config.layers} layers" if config.layers else ""),
        "Data": f"{config.task} ({', '.join(labels)})",
        "Longest input": f"{config.data.max_length} word pieces",
        "Seed": str(seed),
        "Where paper and official code differ": "as in the paper" if config.compat == "paper" else "as in the code",
        "Licence": "that of the base model (Apache-2.0)" if config.model in APACHE else "that of the base model",
    }
    lines = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# {method.title} on {config.task}

A classifier from "Robust Lottery Tickets for Pre-trained Language Models" (ACL 2022), trained with MindSpore.

| | |
| --- | --- |
{lines}

## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
inputs = tokenizer({columns}, truncation=True, return_tensors="pt")
label = model.config.id2label[model(**inputs).logits.argmax().item()]
```
"""


def _pruned(config: Experiment, model: ModelId) -> str:
    """Return what became of the weights that the model's ticket prunes; nothing if all weights were trained."""
    if model.sparsity is None or METHODS[model.method].change == "no_ticket":
        return ""
    share = f"{100 * model.sparsity:g}% of the prunable weights"
    if config.structured:
        return f", about {share} are cut out, as whole attention heads and neurons"
    return f", {share} are exact zeros"


def _table(results: Sequence[Result]) -> str:
    if not results:
        return ""
    rows = [(r.name, r.attack or "none", r.resources or "-", r.texts, f"{r.value:.1%}") for r in results]
    table = markdown.table(("figure", "attack", "resources", "texts", "value"), rows)
    note = "Clean is the accuracy on unchanged texts, Aua the accuracy under the attack. Figures of attacks with\n"
    note += "packaged resources compare with each other, not with published ones."
    return f"\n{RESULTS}\n\n{table}\n\n{note}\n"
