"""The split of the packaged snippets."""

from configs.contract.inputs import snippets


def test_the_hash_depends_on_the_words_alone():
    """Spread evenly over [0, 1), the same on every machine."""
    assert snippets.text_hash(" a  film\n") == snippets.text_hash("a film") == 0.9191498743790625
    hashes = [snippets.text_hash(f"sentence {i}") for i in range(2000)]
    assert 0.17 < sum(p < snippets.MLM_UNSEEN for p in hashes) / 2000 < 0.23
    assert 0 <= min(hashes) and max(hashes) < 1
