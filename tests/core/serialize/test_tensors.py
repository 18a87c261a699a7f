"""Torch tensors: always writable, never over memory of somebody else."""

from __future__ import annotations

from typing import Any

import pytest

from proxystore_core.serialize import dump, layout, load

torch = pytest.importorskip("torch")


def variants() -> dict[str, Any]:
    x = torch.rand(40, 50)
    return {
        "plain": x,
        "transposed": x.T,
        "permuted": torch.rand(3, 4, 5).permute(2, 0, 1),
        "strided": x[::2, 3:7],
        "row": x[3],
        "bfloat16": x.to(torch.bfloat16),
        "bool": x > 0.5,
        "complex": torch.complex(x, x),
        "conjugate": torch.complex(x, x).conj(),
        "no items": torch.empty(0, 3),
        "no axes": torch.tensor(3.5),
        "integers": torch.arange(10),
        "wants gradients": torch.rand(3, requires_grad=True),
        "has history": torch.rand(3, requires_grad=True) * 2,
        "expanded": torch.ones(3, 1).expand(3, 4),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("name", variants())
def test_what_is_loaded_is_equal_and_writable(name: str) -> None:
    tensor = variants()[name]
    parts = dump(tensor)
    assert parts.serializer == "torch"
    stored = parts.tobytes()
    for loaded in (load(stored), load(bytearray(stored)), load(stored, writable=True)):
        assert loaded.dtype == tensor.dtype
        assert loaded.requires_grad == tensor.requires_grad
        assert torch.equal(loaded, tensor)
        loaded.detach().zero_()
    assert torch.equal(load(stored), tensor)
    if name in ("transposed", "channels last"):
        assert load(stored).stride() == tensor.stride()
    nested = load(dump([tensor.detach()]).tobytes())[0]
    assert torch.equal(nested, tensor)


def test_memory_is_shared() -> None:
    tensor = torch.zeros(50, 1000)
    for obj in (tensor, tensor.T, {"x": tensor}):
        parts = dump(obj)
        tensor.fill_(7)
        loaded = load(parts.tobytes())
        assert (loaded["x"] if isinstance(loaded, dict) else loaded).eq(7).all()
        tensor.fill_(0)
    stored = bytearray(dump(tensor).tobytes())
    load(stored, writable=True).fill_(3)
    assert load(stored).eq(3).all()
    load(stored).fill_(4)
    assert load(stored).eq(3).all()


@pytest.mark.parametrize("writable", [False, True])
def test_models(writable: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.Linear(100, 10))
    ones = torch.ones(100)
    stored = dump(model).tobytes()
    _, data, buffers = layout.parse(memoryview(stored))
    assert len(data) < 5000
    assert sum(map(len, buffers)) >= 100 * 110 * 4
    loaded = load(stored, writable=writable)
    assert torch.equal(loaded(ones), model(ones))
    state = load(dump(model.state_dict()).tobytes(), writable=writable)
    for tensor in state.values():
        tensor.zero_()  # ends the process where the memory is read-only
    assert torch.equal(load(stored)(ones), model(ones))


def test_tensors_of_one_storage_stay_together() -> None:
    base = torch.zeros(1000)
    loaded = load(dump({"all": base, "some": base[10:20]}).tobytes())
    loaded["all"].fill_(3)
    assert loaded["some"].eq(3).all()


def test_what_is_no_plain_tensor_is_torch_s_own() -> None:
    for tensor in (
        torch.eye(3).to_sparse(),
        torch.nn.Parameter(torch.rand(3)),
        torch.empty(3, device="meta"),
    ):
        parts = dump(tensor)
        assert parts.serializer == "pickle"
        loaded = load(parts.tobytes())
        assert type(loaded) is type(tensor)
        assert loaded.shape == tensor.shape
    tagged = torch.rand(3)
    tagged.note = "kept"
    assert load(dump(tagged).tobytes()).note == "kept"
