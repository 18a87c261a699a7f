from __future__ import annotations

import pickle

import pytest

from proxystore_core.factory import Factory, LambdaFactory, SimpleFactory
from proxystore_core.proxy import Proxy


class Squared(Factory[int]):
    def __init__(self, root: int) -> None:
        self.root = root

    def resolve(self) -> int:
        return self.root**2


def test_subclasses_say_how_to_resolve() -> None:
    factory = Squared(3)
    assert factory() == factory.resolve() == 9
    assert Proxy(pickle.loads(pickle.dumps(factory))) == 9


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(NotImplementedError, match="subclass it"):
        Factory()

    class Silent(Factory[int]):
        def __init__(self) -> None: ...

    with pytest.raises(NotImplementedError, match="Silent does not define"):
        Silent()()


def test_simple() -> None:
    obj = [1]
    factory = SimpleFactory(obj)
    assert factory() is factory.resolve() is obj
    assert pickle.loads(pickle.dumps(factory))() == obj
    assert repr(SimpleFactory("x" * 10**6)) == "SimpleFactory(<str>)"


def test_lambda() -> None:
    factory = LambdaFactory(sorted, [1, 3, 2], reverse=True)
    assert factory() == factory.resolve() == [3, 2, 1]
    assert pickle.loads(pickle.dumps(factory))() == [3, 2, 1]
    assert repr(factory) == "LambdaFactory(sorted)"
    assert LambdaFactory(lambda: 5)() == 5
    with pytest.raises(TypeError, match="not int"):
        LambdaFactory(5)  # type: ignore[arg-type]  # that is the point


def test_lambda_arguments_may_be_called_as_its_own() -> None:
    def function(**kwargs: int) -> dict[str, int]:
        return kwargs

    assert LambdaFactory(function, args=1, kwargs=2)() == {"args": 1, "kwargs": 2}
