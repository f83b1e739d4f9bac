"""The model: encoders, the hard-concrete gate, random numbers; their parts as CPU kernels and as primitives."""
