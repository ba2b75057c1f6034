"""The task driver: a driven task is a real asyncio task in every way that a program can see."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import contextvars
import sys

import pytest

from portico._core import Queue, driven

from .support import ALL, Server, echo, plain, received, scenario

var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)


async def fail():
    await asyncio.sleep(0)
    raise KeyError


async def times_out(seconds, make_awaitable):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await make_awaitable()
    assert asyncio.current_task().cancelling() == 0


async def group_fails(channel):
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await channel.recv()
    assert asyncio.current_task().cancelling() == 0


async def group(channel):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.01))
        group.create_task(asyncio.sleep(0))


async def cancel_self(awaitable, *message):
    me = asyncio.current_task()
    me.cancel(*message)
    with pytest.raises(asyncio.CancelledError) as caught:
        await awaitable
    assert caught.value.args == message
    me.uncancel()


async def nested(channel):
    channel.send(b"say inner")
    return await channel.recv()


async def nested_driver(channel):
    assert await driven(nested(channel)) == b"inner"


async def sleep_thrice(channel):
    for _ in range(3):
        await asyncio.sleep(0)


async def wait_for_times_out(channel):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel.recv(), 0.02)


async def has_a_stack(channel):
    me = asyncio.current_task()
    assert me.get_coro().__qualname__ and me.get_stack() and "handle" in repr(me)


COMMANDS = {
    b"plain": lambda channel: asyncio.sleep(0),
    b"sleep0": sleep_thrice,
    b"sleep": lambda channel: asyncio.sleep(0.01),
    b"group": group,
    b"group fails": group_fails,
    b"timeout": lambda channel: times_out(0.02, channel.recv),
    b"timeout foreign": lambda channel: times_out(0.02, lambda: asyncio.sleep(5)),
    b"timeout zero": lambda channel: times_out(0, channel.recv),
    b"cancel self": lambda channel: cancel_self(asyncio.sleep(1), "why"),
    b"cancel self in recv": lambda channel: cancel_self(channel.recv()),
    b"wait_for": wait_for_times_out,
    b"nested": nested_driver,
    b"stack": has_a_stack,
}


async def obedient(channel):
    """Do what each message says, then answer with it."""
    me = asyncio.current_task()
    var.set(7)
    async for command in channel:
        assert asyncio.current_task() is me and var.get() == 7
        if command != b"at once":
            await COMMANDS[command](channel)
        await channel.send(command)


async def check_conversation(net):
    async with Server(net, obedient) as server:
        client = await server.connect()
        commands = [command for name in COMMANDS if name != b"nested" for command in (name, b"at once")]
        for command in commands * 2:
            client.send(command)
            assert await asyncio.wait_for(client.recv(), 2) == command, server.errors
        for _ in range(3):
            batch = [
                b"at once",
                b"sleep0",
                b"plain",
                b"sleep",
                b"at once",
                b"cancel self",
                b"plain",
                b"group",
                b"at once",
            ]
            for command in batch:
                client.send(command)
            assert [await asyncio.wait_for(client.recv(), 2) for _ in batch] == batch
        client.send(b"nested")
        assert await client.recv() == b"say inner"
        client.send(b"inner")
        assert await client.recv() == b"nested"


@scenario(wires=ALL)
async def test_driven_tasks_do_what_asyncio_promises(net):
    await check_conversation(net)


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"), debug=True)
async def test_driven_tasks_do_what_asyncio_promises_in_debug_mode(net):
    await check_conversation(net)


@scenario(wires=("tcp", "loop", "memory"))
async def test_one_task_waits_on_many_objects(net):
    async with Server(net, echo) as server:
        a, b = await server.connect(), await server.connect()
        queue, steps = Queue(), []

        async def many():
            for i in range(200):
                a.send(b"a%d" % i)
                b.send(b"b%d" % i)
                steps.append(await b.recv())
                steps.append(await a.recv())
                steps.append(await queue.get())

        async def fill():
            for i in range(200):
                queue.put(i)
                if i % 3 == 0:
                    await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(asyncio.create_task(driven(many())), fill()), 5)
        assert steps == [x for i in range(200) for x in (b"b%d" % i, b"a%d" % i, i)]


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"))
async def test_anything_that_awaits_may_receive(net):
    async with Server(net, echo) as server:
        a, b = await server.connect(), await server.connect()

        async def body():
            for _ in range(20):
                a.send(b"1")
                b.send(b"2")
                assert await asyncio.gather(a.recv(), b.recv()) == [b"1", b"2"]
                async with asyncio.TaskGroup() as group:
                    one, two = group.create_task(received(a)), group.create_task(driven(received(b)))
                    a.send(b"3")
                    b.send(b"4")
                assert (one.result(), two.result()) == (b"3", b"4")
                b.send(b"5")
                assert await asyncio.wait_for(b.recv(), 1) == b"5"
                a.send(b"6")
                done, _ = await asyncio.wait([asyncio.ensure_future(a.recv())], timeout=1)
                assert done.pop().result() == b"6"
                a.send(b"7")
                assert await asyncio.shield(asyncio.ensure_future(a.recv())) == b"7"
                a.send(b"8")
                assert await a.recv() == b"8"

        await body()
        await asyncio.create_task(driven(body()))


@scenario()
async def test_results_and_errors_come_out_as_they_are():
    queue = Queue()

    async def returns(value):
        await queue.get()
        return value

    async def raises(error):
        await queue.get()
        raise error

    values = [1, None, (1, 2), ValueError("as value"), StopAsyncIteration(), b""]
    tasks = [asyncio.create_task(driven(returns(value))) for value in values]
    failing = [asyncio.create_task(driven(raises(error))) for error in (KeyError("x"), asyncio.CancelledError())]
    await asyncio.sleep(0)
    for _ in range(8):
        queue.put(0)
    assert await asyncio.gather(*tasks) == values
    results = await asyncio.gather(*failing, return_exceptions=True)
    assert (
        isinstance(results[0], KeyError) and isinstance(results[1], asyncio.CancelledError) and failing[1].cancelled()
    )


@scenario()
async def test_on_done_hears_how_the_coroutine_ended_and_may_deal_with_it():
    async def ends(how):
        await asyncio.sleep(0)
        if how is not None:
            raise how
        return "value"

    async def parks(how):
        await queue.get()
        if how is not None:
            raise how
        return "value"

    queue, heard = Queue(), []

    def dealt(error):
        heard.append(error)
        return True

    def seen(error):
        heard.append(error)

    error = KeyError()
    for body in (ends, parks):
        for how, on_done, expected in ((None, dealt, "value"), (error, dealt, None), (error, seen, error)):
            heard.clear()
            task = asyncio.create_task(driven(body(how), on_done))
            await asyncio.sleep(0)
            queue.put(0)
            assert await asyncio.gather(task, return_exceptions=True) == [expected]
            assert heard == [how]
        heard.clear()
        task = asyncio.create_task(driven(body(None), dealt))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(heard[0], asyncio.CancelledError) and task.cancelled()
        while len(queue):
            await queue.get()


# --- cancelling, checked against a plain task -----------------------------------------------------------


async def stubborn_child(log):
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        log.append("child cancelled")
        await asyncio.sleep(0.001)
        return "child result"


async def cancel_and_return(me, queue, log):
    me.cancel()
    return "returned"


async def cancel_and_get(me, queue, log):
    me.cancel()
    await queue.get()
    return "got"


async def take_back_and_return(me, queue, log):
    me.cancel()
    me.uncancel()
    return "returned"


async def take_back_and_get(me, queue, log):
    me.cancel()
    me.uncancel()
    log.append(await queue.get())
    return "got"


async def take_back_and_sleep(me, queue, log):
    me.cancel()
    me.uncancel()
    await asyncio.sleep(0.001)
    return "slept"


async def cancel_and_raise(me, queue, log):
    me.cancel()
    raise KeyError


async def cancel_with_a_child(me, queue, log):
    me.cancel()
    return await asyncio.create_task(stubborn_child(log))


async def swallow_and_go_on(me, queue, log):
    me.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        log.append("swallowed")
        await queue.get()
        return "went on"


async def cancel_twice_take_back_once(me, queue, log):
    me.cancel()
    me.cancel()
    me.uncancel()
    await queue.get()
    return "got"


async def cancel_with_a_message(me, queue, log):
    me.cancel("first")
    await asyncio.gather(asyncio.sleep(0.001), asyncio.sleep(1))
    return "not reached"


SCRIPTS = (
    cancel_and_return,
    cancel_and_get,
    take_back_and_return,
    take_back_and_get,
    take_back_and_sleep,
    cancel_and_raise,
    cancel_with_a_child,
    swallow_and_go_on,
    cancel_twice_take_back_once,
    cancel_with_a_message,
)


async def outcome_of(make, script):
    queue, log = Queue(), []

    async def body():
        me = asyncio.current_task()
        try:
            await queue.get()
            return await script(me, queue, log)
        except asyncio.CancelledError as error:
            log.append(("cancelled", error.args, me.cancelling()))
            raise

    task = asyncio.create_task(make(body()))
    await asyncio.sleep(0)
    for i in range(3):
        queue.put(i)
    try:
        log.append(await asyncio.wait_for(task, 2))
    except (asyncio.CancelledError, KeyError) as error:
        log.append(type(error).__name__)
    return log, task.cancelled(), task.cancelling(), len(queue)


@scenario()
async def test_a_task_that_cancels_itself_ends_as_a_plain_one_does():
    for script in SCRIPTS:
        assert await outcome_of(driven, script) == await outcome_of(plain, script), script.__name__


@scenario(debug=True)
async def test_a_task_that_cancels_itself_in_debug_mode():
    for script in SCRIPTS:
        assert await outcome_of(driven, script) == await outcome_of(plain, script), script.__name__


async def check_cancel_at_every_turn(net):
    """Cancel after k turns of the loop, for every k, while data arrives in the same turn."""
    async with Server(net, echo) as server:
        for make in (driven, plain):
            client, queue = await server.connect(), Queue()
            sent = received = put = got = 0

            async def body():
                nonlocal received, got
                while True:
                    assert await client.recv() == b"%d" % received
                    received += 1
                    await asyncio.sleep(0)
                    assert await queue.get() == got
                    got += 1
                    async with asyncio.timeout(1):
                        assert await client.recv() == b"%d" % received
                        received += 1
                    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

            for k in range(120):
                task = asyncio.create_task(make(body()))
                for turn in range(k // 2):
                    client.send(b"%d" % sent)
                    sent += 1
                    queue.put(put)
                    put += 1
                    await asyncio.sleep(0 if turn % 5 else 0.0005)
                if k % 2:
                    client.send(b"%d" % sent)
                    sent += 1
                task.cancel()
                if k % 3:
                    client.send(b"%d" % sent)
                    sent += 1
                with pytest.raises(asyncio.CancelledError):
                    await task
            while received < sent:
                assert await asyncio.wait_for(client.recv(), 2) == b"%d" % received
                received += 1
            while got < put:
                assert await queue.get() == got
                got += 1


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"))
async def test_cancelled_at_any_turn_nothing_is_lost_or_doubled(net):
    await check_cancel_at_every_turn(net)


# --- queues ---------------------------------------------------------------------------------------------


@scenario()
async def test_a_getter_that_is_woken_and_cancelled_passes_the_wake_on():
    queue = Queue()

    async def getter():
        return await queue.get()

    for make in (driven, plain):
        tasks = [asyncio.create_task(make(getter())) for _ in range(3)]
        await asyncio.sleep(0)
        queue.put("x")
        tasks[0].cancel()
        results = await asyncio.wait_for(asyncio.gather(*tasks[:2], return_exceptions=True), 1)
        assert isinstance(results[0], asyncio.CancelledError) and results[1] == "x"
        queue.put("y")
        assert await asyncio.wait_for(tasks[2], 1) == "y"


@scenario()
async def test_tasks_that_wake_each_other_for_ever_let_the_loop_go_on():
    left, right = Queue(), Queue()

    async def player(mine, other):
        while True:
            other.put(await mine.get())

    tasks = [asyncio.create_task(driven(player(*pair))) for pair in ((left, right), (right, left))]
    await asyncio.sleep(0)
    left.put("ball")
    await asyncio.wait_for(asyncio.sleep(0.02), 1)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@scenario()
async def test_eager_tasks():
    queue, log = Queue(), []

    async def child(i):
        log.append((i, await queue.get()))
        return asyncio.current_task()

    async def parent():
        loop = asyncio.get_running_loop()
        await queue.get()
        eager = [asyncio.Task(driven(child(i)) if i % 2 else child(i), loop=loop, eager_start=True) for i in range(4)]
        queue.put("p")
        log.append(("parent", await queue.get()))
        for i in range(4):
            queue.put(i)
        assert await asyncio.gather(*eager) == eager

    task = asyncio.create_task(driven(parent()))
    await asyncio.sleep(0)
    queue.put(0)
    await asyncio.wait_for(task, 2)
    assert len(log) == 5


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"), debug=True)
async def test_what_recv_returns_is_taken_by_a_task_as_a_coroutine(net):
    assert asyncio.iscoroutine(Queue().get())
    async with Server(net, echo) as server:
        channel = await server.connect()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(channel.recv())
            await asyncio.sleep(0)
            await channel.send(b"one")
        assert waiting.result() == b"one"
        waiting = asyncio.create_task(channel.recv(), name="waits")
        assert "waits" in repr(waiting)
        await asyncio.sleep(0)
        assert waiting.get_stack() == []
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        channel.send(b"two")
        channel.send(b"three")
        assert await asyncio.wait_for(channel.recv(), 5) == b"two"
        done, _ = await asyncio.wait({asyncio.create_task(anext(channel))}, timeout=5)
        assert [each.result() for each in done] == [b"three"]
