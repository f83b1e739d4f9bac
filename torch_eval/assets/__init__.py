"""Packaged resources of the attacks (synonyms, stop words) and the scripts that made them."""
