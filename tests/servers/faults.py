"""stub"""


class FaultProxy:
    def __init__(self, *a): ...
    def __enter__(self):
        return self

    def __exit__(self, *a): ...


class TcpProxy(FaultProxy): ...
