"""What the report explains in words, for readers who have not read the paper."""

IDEA = (
    "A text classifier can be fooled: an attack replaces a few words by others of the same meaning, and the "
    "classification changes. A **robust ticket** is a part of a pre-trained BERT that is meant to be harder to fool. "
    "It is found in three steps. First, a mask over the weights of a fine-tuned model is learned, while an adversary "
    "perturbs the word embeddings and a penalty lowers the number of weights kept. Second, the weights with the "
    "lowest mask scores are removed for good. Third, the weights that remain are trained again from their pre-trained "
    "values. This report compares robust tickets with other ways to train and prune the same model."
)
MEASURED = (
    "**Clean**: accuracy on unchanged sentences, on the whole test set and on the sample that is attacked.",
    "**Aua** (accuracy under attack): share of the sample that is still classified correctly after the attack.",
    "**Suc**: share of the attacked sentences that the attack broke. Only sentences that are classified correctly at "
    "first are attacked.",
    "**#Query**: mean number of times that the attack asked the model about one sentence.",
)
MEANING = (
    "A robust model has a high Clean, Aua and #Query and a low Suc. The best value of a column is bold. With several "
    "seeds, tables show the mean, and the standard deviation after ±; each seed has a 95% interval of its own "
    "(Wilson's for shares, bootstrap for #Query). An attack that runs out of its budget has timed out. Aua and Suc are "
    "then ranges: from all timed-out attacks counted as broken to all counted as survived. The percentage after a "
    "method's name is the share of weights pruned. A model that predicts one class, or is no better than that, has "
    "learned nothing: no attack can change its prediction. It is marked, and never counts as the best."
)
PACKAGED = (
    "**Not comparable with the paper's figures:** {}. These attacks use **packaged** resources, which work offline "
    "(synonyms, sentence encoder, tagger and masked language model), in place of the original ones. Compare only rows "
    "of one part of a table with each other."
)
UNFINISHED = "**{} is not finished:** {} of {} results are missing. See “Missing and stale results”."
BOTH_TEXTS = (
    "**{}**: under the official protocol {} may change both texts of a pair. The official code protects one of them "
    "under TextFooler alone, and only where they are called premise and hypothesis, as in MNLI."
)
MIXED = (
    "**{}: some results were made with other settings.** They form a comparison group of their own, and are never "
    "averaged or compared with the others. {}"
)
STALE = (
    "{}: these results are **stale**: they were made with other settings, models or sentences than this report was "
    "called with. Run the experiment again with on_change=redo, or choose another name:"
)
PAIRED = (
    "The test compares two models on the same sentences under the same attack. It counts the sentences that only one "
    "of the two still classifies correctly after the attack. McNemar's exact test asks whether the first model wins "
    "as often as the second: a small p says that the difference is more than chance. Pairs in which an attack timed "
    "out are left out. Several seeds attack the same sentences, so they do not make more sentences: the results of "
    "all seeds on one sentence count together under one sign (an exact sign-flip test, which is McNemar's for one "
    "seed). The p of each seed stands below. The gain is the accuracy under attack of the first model minus that of "
    "the second, with a 95% interval from resampling the sentences. The column p (Holm) is corrected for the number of "
    "tests by Holm's method: a model's tests against models of as many epochs are one family, its other tests "
    "another. The sentences at the top of the report call a difference clear if the uncorrected p is below 0.05; they "
    "do not test the price in accuracy. The test is about the models that were trained: with one seed it cannot say "
    "how much another training seed would change. Models that were trained for several lengths are compared at equal "
    "length, with the shortest training that took at least as much compute, and with the shortest that fits the "
    "training set at least as well."
)
NO_GAIN = (
    " `docs/results/README.md` has results of longer searches and more seeds; tickets to reuse are in `docs/zoo.md`."
)
