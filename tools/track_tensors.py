"""Follow the bytes of tensors while a model trains: of all that live, and of those that autograd saves."""

import weakref
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Follow the bytes of all tensors that live: ``peak`` is what a GPU would have to hold."""

    def __init__(self, tensors: Iterator[torch.Tensor]):
        super().__init__()
        self.known: set[int] = set()
        self.held = self.peak = 0
        for tensor in tensors:
            self._see(tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        for one in tree_leaves(output):
            if isinstance(one, torch.Tensor):
                self._see(one)
        return output

    def _see(self, tensor: torch.Tensor) -> None:
        # The same object for as long as the storage lives.
        storage = tensor.untyped_storage()
        if id(storage) not in self.known:
            self.known.add(id(storage))
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._freed, id(storage), storage.nbytes())

    def _freed(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.held -= size


class SavedTensors:
    """Follow the bytes that autograd keeps, without those of ``weights``, by hooks of `saved_tensors_hooks`."""

    def __init__(self, weights: Collection[int]):
        self.weights, self.kept = weights, Counter[int]()
        self.held = self.peak = 0

    def pack(self, tensor: torch.Tensor) -> "SavedTensor":
        holder = SavedTensor(tensor)
        for place, size in storage_bytes([tensor]).items():
            if place not in self.weights:
                self.held += size * (not self.kept[place])
                self.kept[place] += 1
                self.peak = max(self.peak, self.held)
                weakref.finalize(holder, self._freed, place, size)
        return holder

    def _freed(self, place: int, size: int) -> None:
        self.kept[place] -= 1
        self.held -= size * (not self.kept[place])


class SavedTensor:
    """A saved tensor, for as long as autograd keeps it."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


def storage_bytes(tensors: Any) -> dict[int, int]:
    """Return the bytes of each storage of tensors, by its address."""
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
