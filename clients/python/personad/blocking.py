"""The same client without async: every call waits, streams are plain iterators.

    with Client() as daemon:
        session = daemon.open("keeper")
        print(session.say("Hello!")[0].text)

An event loop of its own runs in a thread; a Client may be used from several threads.
"""
from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import Optional

from .aio import AsyncClient, AsyncSession


class _Loop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="personad", daemon=True)
        self.thread.start()

    def run(self, work):
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def iterate(self, pieces):
        end = object()

        async def step():
            return await anext_or(pieces, end)

        try:
            while True:
                piece = self.run(step())
                if piece is end:
                    return
                yield piece
        finally:
            self.run(pieces.aclose())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


async def anext_or(pieces, end):
    """The next of an async iterator, or `end`."""
    try:
        return await pieces.__anext__()
    except StopAsyncIteration:
        return end


def _wrap(loop: _Loop, value):
    if isinstance(value, AsyncSession):
        return Session(loop, value)
    if isinstance(value, list):
        return [_wrap(loop, one) for one in value]
    return value


def _block(name: str, method):
    """A method that waits for the one of the same name of the asyncio class."""
    if inspect.iscoroutinefunction(method):
        @functools.wraps(method)
        def call(self, *arguments, **keywords):
            work = getattr(self._inner, name)(*arguments, **keywords)
            return _wrap(self._loop, self._loop.run(work))
    else:
        @functools.wraps(method)
        def call(self, *arguments, **keywords):
            return self._loop.iterate(getattr(self._inner, name)(*arguments, **keywords))
    return call


def _blocking(asynchronous):
    """Gives a class all public methods of the asyncio one."""
    def decorate(made):
        for name, method in vars(asynchronous).items():
            if not name.startswith("_") and inspect.isfunction(method):
                setattr(made, name, _block(name, method))
        return made
    return decorate


@_blocking(AsyncSession)
class Session:
    """A tree of conversation. Methods are those of AsyncSession; streams are iterators."""

    def __init__(self, loop: _Loop, inner: AsyncSession) -> None:
        self._loop = loop
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


@_blocking(AsyncClient)
class Client:
    """A daemon. Methods are those of AsyncClient; streams are iterators."""

    def __init__(self, socket: Optional[str] = None, patience: float = 60.0) -> None:
        self._loop = _Loop()
        self._inner = AsyncClient(socket, patience)
        try:
            self._loop.run(self._inner.__aenter__())
        except BaseException:
            self._loop.stop()
            raise

    def close(self) -> None:
        self._loop.run(self._inner.__aexit__(None, None, None))
        self._loop.stop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()
