"""A job on asyncpg: prepared statements with a cache of their own, a cursor, COPY both ways, LISTEN, a cancelled statement."""
import asyncio
import io
import os
import ssl

import asyncpg


async def main():
    context = ssl.create_default_context(cafile=os.environ["CA"])
    connection = await asyncpg.connect(os.environ["DATABASE_URL"], ssl=context)
    assert [await connection.fetchval("select $1::int * 2", n) for n in range(10)] == [n * 2 for n in range(10)]
    try:
        await connection.execute("select * from public.nothing")
        raise SystemExit("a missing table was found")
    except asyncpg.UndefinedTableError:
        pass
    async with connection.transaction():
        rows = [row["g"] async for row in connection.cursor("select generate_series(1, 120) as g", prefetch=50)]
    assert rows == list(range(1, 121))
    await connection.execute("create temp table lines (id int, item text)")
    records = [(n, f"item {n}") for n in range(5000)]
    assert await connection.copy_records_to_table("lines", records=records) == "COPY 5000"
    out = io.BytesIO()
    assert await connection.copy_from_query("select * from lines", output=out) == "COPY 5000"
    assert out.getvalue().count(b"\n") == 5000
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("python", lambda *event: heard.set_result(event[3]))
    await connection.execute("notify python, 'hello'")
    assert await heard == "hello"
    try:
        await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.5)
        raise SystemExit("pg_sleep was not cancelled")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("select current_user") == "shop_migrator"
    await connection.close()


asyncio.run(main())
print("done")
