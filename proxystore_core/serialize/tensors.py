"""Torch tensors on the CPU.

Torch knows no read-only memory: a write into a read-only mapping would end
the process. So tensors are made over private, writable memory, or a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proxystore_core.serialize import reducers
from proxystore_core.serialize.arrays import stride_order
from proxystore_core.serialize.registry import Dumped

if TYPE_CHECKING:
    import torch


class TensorSerializer:
    """Dense tensors of the class `torch.Tensor` itself."""

    identifier = "torch"
    writable = True

    def dump(self, obj: torch.Tensor) -> Dumped:
        """Give the memory of the tensor, and its type, shape and order in-band."""
        import torch

        if (
            obj.layout is not torch.strided
            or obj.device.type != "cpu"
            or obj.is_quantized
            or obj.__dict__
        ):
            return None
        tensor = obj.detach().resolve_conj().resolve_neg()
        axes = stride_order(tensor.stride())
        straight = tensor.permute(axes)
        if not straight.is_contiguous():
            axes = tuple(range(tensor.dim()))
            straight = tensor.contiguous()
        memory = _memory(straight.reshape(-1).view(torch.uint8)) if tensor.numel() else b""
        numbers = ";".join(",".join(map(str, n)) for n in (straight.shape, axes))
        dtype = str(obj.dtype).removeprefix("torch.")
        return f"{dtype};{int(obj.requires_grad)};{numbers}".encode(), (memory,)

    def load(self, data: memoryview, buffers: Sequence[memoryview]) -> torch.Tensor:
        """Make a tensor over the bytes, which are writable and the caller's own."""
        import torch

        name, grad, *numbers = str(data, "ascii").split(";")
        shape, axes = ([int(n) for n in text.split(",") if n] for text in numbers)
        dtype = getattr(torch, name)
        memory = buffers[0]
        if memory.nbytes:
            flat = torch.frombuffer(memory, dtype=torch.uint8).view(dtype)
        else:
            flat = torch.empty(0, dtype=dtype)
        tensor = flat.reshape(shape).permute(sorted(range(len(axes)), key=axes.__getitem__))
        return tensor.requires_grad_() if grad == "1" else tensor


def _memory(flat: torch.Tensor) -> memoryview:
    array: Any = flat.numpy()
    return memoryview(array)


def _reduce_storage(storage: Any, attach: reducers.Attach) -> Any:
    import torch

    if storage.device.type != "cpu" or not storage.nbytes():
        return NotImplemented
    flat = torch.empty(0, dtype=torch.uint8).set_(storage)
    return _storage, (attach(_memory(flat)),)


def _storage(buffer: Any) -> Any:
    import torch

    view = memoryview(buffer)
    own = bytearray(view) if view.readonly else view
    return torch.frombuffer(own, dtype=torch.uint8).untyped_storage()


def _reduce_typed_storage(storage: Any, attach: reducers.Attach) -> Any:
    untyped = storage._untyped_storage
    if untyped.device.type != "cpu" or not untyped.nbytes():
        return NotImplemented
    return _typed_storage, (untyped, storage.dtype)


def _typed_storage(untyped: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=untyped, dtype=dtype, _internal=True)


def torch_reducers(torch: Any) -> dict[type, reducers.Reducer]:
    """Return the reducers of the storages that tensors in other objects have."""
    return {
        torch.UntypedStorage: _reduce_storage,
        torch.storage.TypedStorage: _reduce_typed_storage,
    }
