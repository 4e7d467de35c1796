"""Shapes are checked while these tests run. The hook must be in place before morvit is imported."""

import torch
from jaxtyping import install_import_hook

install_import_hook("morvit", "beartype.beartype")
torch.set_num_threads(1)
