"""The training half: finds and trains robust lottery tickets with MindSpore. It never imports PyTorch."""
