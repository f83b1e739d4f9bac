"""Made-up records of searches: when a finished one would have stopped, worked out by hand, and what is drawn."""

from configs.contract.basics.files import read_json
from configs.contract.experiment import schema
from configs.contract.run import run_dir
from tests.helpers import made_up_run as made_up
from tests.helpers.files import edit_json
from torch_eval.report import early_tickets, figure_sections, figures, run_state, ticket_sections

KEYS = ["seeds=[1,2]", "search.epochs=4"]


def test_thresholds_name_the_epoch_and_what_its_ticket_reached(tmp_path):
    """The ticket changes by 0.02, 0.005 and 0.00125 in the last three of four epochs; Aua grows by a point in each."""
    paths = run_dir.RunDir(schema.load("demo", [*KEYS, "choice.epochs=4"]), tmp_path)
    made_up.prepare(paths)
    made_up.choose(paths, paths.config.sparsities[0])
    for seed in (1, 2):
        made_up.search(paths, seed)
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    *_, candidates = ticket_sections.choice(run)
    ends = ["", *(f", {epochs} before the end of the search" for epochs in ("1 epoch", "2 epochs", "3 epochs"))]
    assert [row[0].text for row in candidates.rows[1:]] == ["Robust ticket 30%" + end for end in ends]
    *_, table = early_tickets.early([run])
    assert [[cell.text for cell in row] for row in table.rows[1:]] == [
        ["0.1", "2.0 of 4", "48.0", "50.0", "50.0%"],
        ["0.03", "2.0 of 4", "48.0", "50.0", "50.0%"],
        ["0.01", "3.0 of 4", "49.0", "50.0", "25.0%"],
    ]
    manifest = paths.stage(2, "search") / "manifest.json"
    results = read_json(manifest)["results"]
    edit_json(manifest, results={**results, "epochs": 5})  # seeds may stop after different epochs
    *_, table = early_tickets.early([run])
    assert [row[1].text for row in table.rows[1:]] == ["2.0 of 4.5", "2.0 of 4.5", "3.0 of 4.5"]


def test_without_candidates_of_several_epochs_there_is_nothing_to_say(tmp_path):
    paths = run_dir.RunDir(schema.load("demo", KEYS), tmp_path)
    made_up.prepare(paths)
    made_up.choose(paths, paths.config.sparsities[0])
    made_up.search(paths, 1)
    assert early_tickets.early([run_state.Run(paths.config, ["demo"], tmp_path)]) == []


def test_evaluations_are_no_points_of_the_curves_of_a_search(tmp_path, monkeypatch):
    """They lack the penalty's weight alone, and would draw it as 0 after every epoch."""
    paths = run_dir.RunDir(schema.load("demo", ["seeds=[1]"]), tmp_path)
    made_up.prepare(paths)
    made_up.search(paths, 1)
    drawn = {}
    monkeypatch.setattr(figures, "mask_learning", lambda searches, path: drawn.update(searches))
    run = run_state.Run(paths.config, ["demo"], tmp_path)
    figure_sections.learning([run], tmp_path)
    evaluations = [record for record in run.records(1, "search") if record.dev_accuracy is not None]
    assert evaluations and all(record.l0_term is not None for record in evaluations)
    assert drawn == {"seed 1": [record for record in run.records(1, "search") if record.dev_accuracy is None]}
