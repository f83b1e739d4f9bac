"""The benchmark of attacks: what it counts, that it is resumed, and its table."""

import pytest

from configs.contract.basics.errors import UserError
from configs.contract.basics.files import read_lines, write_lines
from tests.helpers.attacked_runs import SENTENCES, WorkersInThisProcess, attacks_here
from tests.helpers.refusals import refusal
from tests.helpers.victims import write_bert
from torch_eval.attack import workers
from torch_eval.bench import attacks, families


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Call with further arguments; returns the run directory."""
    write_bert(tmp_path / "model")
    write_lines(tmp_path / "texts.jsonl", [{"sentence": s, "label": i % 2} for i, s in enumerate(SENTENCES)])

    def run(*arguments):
        workers.load_victim.cache_clear()
        workers.load_attack.cache_clear()
        attacks.load_stock.cache_clear()
        fixed = [f"model={tmp_path / 'model'}", f"data={tmp_path / 'texts.jsonl'}", "max_length=24", "turn=2"]
        attacks.main([*fixed, *arguments], tmp_path)
        return tmp_path

    with attacks_here(monkeypatch, attacks):
        yield run


def test_it_counts_writes_and_goes_on(bench, monkeypatch):
    runs = bench("recipes=[bertattack]", "candidates=[3]", "examples=4", "long_examples=1")
    [line] = read_lines(runs / "bench.jsonl")
    assert (line["name"], line["of"]) == ("attack bertattack K=3", 4)
    assert line["exact"] == line["same_reading"] == line["same_outcome_and_queries"] == 4
    assert line["ratio"] > 0 and line["ratio_512"] > 0 and "TextAttack 0.3.11" in line["reference"]
    assert "| bertattack K=3 | 4/4 | 4/4 | 4/4 | 4/4 |" in (runs / "bench_attacks.md").read_text()

    attacked, ours, stock = [], attacks.attack_example, attacks.attack_stock

    def counted(target, spec, seed, index, example):
        attacked.append(index)
        return ours(target, spec, seed, index, example)

    def counted_stock(*task):
        attacked.append(-1)
        return stock(*task)

    monkeypatch.setattr(attacks, "attack_example", counted)
    monkeypatch.setattr(attacks, "attack_stock", counted_stock)
    monkeypatch.setattr(attacks, "usable_cores", lambda: 2)
    bench("recipes=[bertattack]", "candidates=[3]", "examples=5", "long_examples=1")
    assert len(set(attacked)) == 2 and len(attacked) == 2 + 3  # each process warms up with it first
    assert read_lines(runs / "bench.jsonl")[-1]["of"] == 5

    attacked.clear()
    monkeypatch.setattr(attacks, "code_hash", lambda: "changed")
    bench("recipes=[bertattack]", "candidates=[3]", "examples=5", "long_examples=1")
    assert len(set(attacked)) == 5 and -1 not in attacked  # ours alone, all over again


def test_a_family_is_compared_and_the_last_result_is_shown(bench, tmp_path, capsys):
    for examples in (1, 2):
        words = ["families=[distilbert]", "recipes=[textfooler]", "max_length=16", f"examples={examples}"]
        assert families.main(words, tmp_path) == 0
    first, last = read_lines(tmp_path / "bench" / "families" / "results.jsonl")
    assert (first["of"], last["of"], last["differ"]) == (1, 2, []) and last["queries"] > first["queries"]
    output = capsys.readouterr().out.splitlines()
    assert output[-1].startswith("| distilbert | attack textfooler | 2/2 | 2/2 |") and output[-2].startswith("| --- |")


def test_a_witness_of_another_length_is_not_called(bench, tmp_path):
    """Where ours and stock differ, stock on one thread attacks again: at the length of the comparison."""
    examples = [{"sentence": sentence, "label": i % 2} for i, sentence in enumerate(SENTENCES[:1])]
    spec, pool = attacks.Spec("textbugger", ("sentence",), ("sentence",)), WorkersInThisProcess(1)
    for length in (16, 24):
        options = attacks.Options(max_length=length, long_examples=0)
        comparison = attacks.StockComparison(
            tmp_path / "bench", tmp_path / "model", tmp_path / "texts.jsonl", spec, options, examples
        )
        comparison.folder.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attacks, "same", lambda *_, **__: False)
            comparison.run([0], pool, pool, pool)
    assert len(list(comparison.folder.glob("stock-one-thread*"))) == 2


def test_texts_that_read_alike_are_told_from_exact_ones(bench, tmp_path):
    options = attacks.Options(max_length=24)
    spec = attacks.Spec("textbugger", ("sentence",), ("sentence",))
    comparison = attacks.StockComparison(
        tmp_path / "bench", tmp_path / "model", tmp_path / "texts.jsonl", spec, options, []
    )
    a, b, c = (
        {"outcome": "success", "queries": 9, "perturbed": {"sentence": text}}
        for text in ("a f\U0001d68am", "a \U0001d68am", "a dull film")
    )
    assert attacks.same(a, a) and not attacks.same(a, b) and attacks.same(a, b, text=False)
    assert comparison._reads_alike(a, b) and not comparison._reads_alike(a, c)
    assert not comparison._reads_alike(a, {**b, "queries": 8})


def test_words_of_too_many_combinations_are_left_to_ours(bench, tmp_path):
    options = attacks.Options(combinations=1000)
    examples = [{"sentence": "a dull film"}, {"sentence": "a film of whodunits and schmaltzy hokum"}]
    for recipe, expected in [("bertattack", [True, False]), ("textfooler", [True, True])]:
        spec = attacks.Spec(recipe, ("sentence",), ("sentence",), candidates=48)
        comparison = attacks.StockComparison(
            tmp_path / "bench", tmp_path / "model", tmp_path / "texts.jsonl", spec, options, examples
        )
        assert [comparison.affordable(index) for index in (0, 1)] == expected


WRONG = [
    "recipes=[nope]",
    "recipes=[bertattack",
    "recipes=[]",
    "candidates=[0]",
    "candidates=few",
    "examples=all",
    "turn=0",
    "turn=true",
    "max_length=3",
]


@pytest.mark.parametrize("argument", WRONG)
def test_wrong_values_are_one_clear_error(argument):
    assert argument.partition("=")[0] in refusal(attacks.main, [argument])


def test_an_empty_file_of_texts_is_one_clear_error(bench, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="empty.jsonl holds no sentence"):
        bench(f"data={tmp_path / 'empty.jsonl'}")


def test_unknown_keys_are_refused(bench):
    with pytest.raises(UserError, match="bench attacks: unknown key exmples"):
        bench("exmples=3")
