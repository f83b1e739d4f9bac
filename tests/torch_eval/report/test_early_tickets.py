"""When a finished search of made-up figures would have stopped, worked out by hand."""

from configs.contract import run_dir, schema
from tests.helpers import made_up_run as made_up
from torch_eval.report import early_tickets, run_state, ticket_sections

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


def test_without_candidates_of_several_epochs_there_is_nothing_to_say(tmp_path):
    paths = run_dir.RunDir(schema.load("demo", KEYS), tmp_path)
    made_up.prepare(paths)
    made_up.choose(paths, paths.config.sparsities[0])
    made_up.search(paths, 1)
    assert early_tickets.early([run_state.Run(paths.config, ["demo"], tmp_path)]) == []
