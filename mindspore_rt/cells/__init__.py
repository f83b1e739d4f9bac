"""The model: BERT, the hard-concrete gate, random numbers, and the two implementations of their parts."""
