"""Networks as such: their tensors, copies of them, and running them at other weights."""
