"""The MindSpore side of comparisons that `torch_eval` starts (speed and parity), and the check of a device."""
