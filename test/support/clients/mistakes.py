"""Connects as told on standard input (JSON) with the driver that is named, and prints what each error says (JSON)."""
import asyncio
import json
import ssl
import sys


def connect_psycopg(attempt, host, port, ca):
    import psycopg

    psycopg.connect(
        host=host, port=port, user=attempt["user"], password=attempt["password"], dbname=attempt["database"],
        sslmode=attempt["sslmode"], sslrootcert=ca if attempt["sslmode"] == "verify-full" else None,
    ).close()


def connect_asyncpg(attempt, host, port, ca):
    import asyncpg

    async def connect():
        tls = ssl.create_default_context(cafile=ca) if attempt["sslmode"] == "verify-full" else attempt["sslmode"]
        connection = await asyncpg.connect(
            host=host, port=port, user=attempt["user"], password=attempt["password"], database=attempt["database"], ssl=tls,
        )
        await connection.close()

    asyncio.run(connect())


connect = {"psycopg": connect_psycopg, "asyncpg": connect_asyncpg}[sys.argv[1]]
work = json.load(sys.stdin)
said = []
for attempt in work["attempts"]:
    try:
        connect(attempt, work["host"], work["port"], work["ca"])
        said.append("connected")
    except Exception as error:
        said.append(str(error))
json.dump(said, sys.stdout)
