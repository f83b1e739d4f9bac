"""Speed and exactness: training steps against PyTorch, attacks against TextAttack as it comes."""
