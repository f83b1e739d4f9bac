"""The training half: finds and trains robust lottery tickets with MindSpore. It never imports PyTorch."""

import os

os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings say nothing a user can act on
