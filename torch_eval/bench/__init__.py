"""Speed and exactness: training steps against PyTorch, attacks against unmodified TextAttack."""
