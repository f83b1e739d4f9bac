"""What the report explains in words, for readers who have not read the paper."""

IDEA = (
    "A text classifier can be fooled by swapping a few words for others of the same meaning. A **robust ticket** is "
    "a part of a pre-trained BERT that is meant to be harder to fool: a mask over its weights is learned on a "
    "fine-tuned model while its word embeddings are disturbed on purpose (adversarial training with a penalty on "
    "the number of weights kept). The weights with the lowest mask scores are removed for good, and what is left is "
    "trained again from its pre-trained values. Below, it stands beside other ways of training and pruning the same "
    "model."
)
MEASURED = (
    "**Clean**: accuracy on unchanged sentences, on the whole test set and on the sample that is attacked.",
    "**Aua** (accuracy under attack): share of the sample still classified correctly after the attack.",
    "**Suc**: share of the attacked sentences (those classified correctly at first) that turned into errors.",
    "**#Query**: how often the attack had to ask the model about one sentence, on average.",
)
MEANING = (
    "A robust model has high Clean, Aua and #Query and a low Suc. The best value of a column is bold. Several seeds: "
    "the mean, and after ± the standard deviation; the 95% intervals (Wilson's for shares, bootstrap for #Query) are "
    "each seed's own. Where attacks ran out of their budget (timed out), Aua and Suc lie between two values, those "
    "of all of these broken and of all survived. Percentages behind a method's name are the share of weights pruned."
)
PACKAGED = (
    "**Not comparable with the paper's figures:** {}. These attacks use **packaged** resources (synonyms, sentence "
    "encoder, tagger and masked language model that work offline) in place of the originals; compare only rows of "
    "one table part with each other."
)
BOTH_TEXTS = (
    "**{}**: under the official protocol {} may change both texts of a pair. The official code protects one of them "
    "under TextFooler alone, and only where they are called premise and hypothesis, as in MNLI."
)
MIXED = (
    "**{}: some results were made in another way** and stand apart; they are never averaged or compared with the "
    "rest. {}"
)
PAIRED = (
    "On the same sentences, attacked in the same way, it counts those that only one of two models still classifies "
    "rightly after the attack. McNemar's exact test asks whether the first wins as often as it loses: a small p "
    "says that the difference is more than chance. Sentences on which either attack ran out of its budget are left "
    "out. Several seeds attack the same sentences: what they say of one goes together under one sign (an exact "
    "sign-flip test, which is McNemar's for one seed), so seeds do not make sentences more. The p of each seed stands "
    "below. No correction for the number of tests."
)
