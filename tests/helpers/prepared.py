"""The summary of a data set and the choice of a ticket, as `prepare` and `choose` leave them."""

from pathlib import Path

from configs.contract.basics.files import file_hash, write_json
from configs.contract.experiment.model_id import ModelId
from configs.contract.run.run_dir import RunDir


def write_summary(
    run: RunDir, columns: tuple[str, ...] = ("sentence",), labels: tuple[str, ...] = ("bad", "good")
) -> Path:
    """Write `summary.json` of the splits that are there; one that is not gets a hash that no file has."""
    splits = {}
    for name in ("train", "dev", "test", *(["choice"] if run.split("choice").is_file() else [])):
        file = run.split(name)
        text = file.read_bytes() if file.is_file() else b""
        splits[name] = {"count": max(1, text.count(b"\n")), "sha256": file_hash(file) if text else ""}
    summary = {"columns": [*columns], "labels": [*labels], "attacked": [columns[-1]], "splits": splits}
    write_json(run.data / "summary.json", summary)
    return run.data / "summary.json"


def write_choice(run: RunDir, model: str) -> None:
    """Write `choice.json` with this ticket chosen, such as `robust-0.50-back-1`."""
    write_json(run.choice, {"chosen": ModelId.parse(model).record()})
