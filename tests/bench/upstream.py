"""
The upstream of the benchmark, on the core of the load: nginx with fixed replies, and a server of event streams.

The replies are those of the simulated upstream, asked once. Large bodies are read whole before they are answered.
"""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.bench.nginx import running_nginx
from tests.bench.processes import HOST, LOAD_CORE, free_port, inherited, running
from tests.bench.subjects import EMBEDDINGS, JSON_32, UPSTREAM_KEY
from tests.bench.workloads import EMBEDDING_FLOATS, MODEL, WORKLOADS
from tests.support.documents import ROOT
from tests.support.servers import simulated_upstream

CONTENT_BYTES = 64 * 2**20  # of the file that /v1/files/{file_id}/content serves
_MAX_INLINE_BYTES = 3000  # a word of nginx's configuration has at most 4,096
# Those of the service that cost a gateway something: it has to decide about each.
_SERVICE_HEADERS = {"x-request-id": "req_0123456789abcdef0123456789abcdef", "openai-processing-ms": "12"}
_FILE_FIELDS = {"purpose": "user_data"}


@dataclass(frozen=True)
class UpstreamUrls:
    """
    Where the upstream listens, both without `/v1`.

    Args:
        replies: For everything but event streams.
        events: For event streams.
        pids: Of both.
    """

    replies: str
    events: str
    pids: tuple[int, int]


@contextmanager
def running_upstream(folder: Path) -> Iterator[UpstreamUrls]:
    """
    Run both until the block ends.

    Args:
        folder: For their files; takes 64 MiB.

    Raises:
        DidNotStart: One of them.
    """
    replies = asyncio.run(simulated_replies())
    (folder / "content").write_bytes(bytes(range(256)) * (CONTENT_BYTES // 256))
    for name, reply in replies.items():
        (folder / f"{name}.json").write_bytes(reply)
    url = f"http://{HOST}:{free_port()}"
    port = free_port()
    events = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "tests.bench.events", "--port", str(port)]
    environment = {**inherited(), "PYTHONPATH": str(ROOT)}
    servers = server_blocks(url, replies, folder)
    with (
        running_nginx(folder, servers, f"{url}/livez", (LOAD_CORE,)) as nginx,
        running(command, events, folder / "events.log", environment, cores=(LOAD_CORE,)) as paced,
    ):
        yield UpstreamUrls(url, events, (nginx.pid, paced.pid))


async def simulated_replies() -> dict[str, bytes]:
    """Ask the simulated upstream for the reply to each workload, by the name of its location."""
    transport = httpx.ASGITransport(simulated_upstream())
    headers = {"Authorization": f"Bearer {UPSTREAM_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://upstream", headers=headers) as service:

        async def ask(path: str, **body: Any) -> bytes:
            reply = await service.post(path, **body)
            reply.raise_for_status()
            assert reply.headers["content-type"] == "application/json"
            return reply.content

        replies = {
            "chat": await ask("/v1/chat/completions", json=WORKLOADS[JSON_32].body),
            "embeddings": await ask("/v1/embeddings", json=WORKLOADS[EMBEDDINGS].body),
            "responses": await ask("/v1/responses", json={"model": MODEL, "input": "Say hello."}),
            "files": await ask("/v1/files", data=_FILE_FIELDS, files={"file": ("large.bin", b"Hello")}),
        }
    replies["embeddings"] = _with_numbers(replies["embeddings"])
    return replies


def server_blocks(url: str, replies: Mapping[str, bytes], folder: Path) -> str:
    """What stands inside `http` of its configuration."""
    headers = "\n".join(f"        add_header {name} {value};" for name, value in _SERVICE_HEADERS.items())
    # What is answered at once would be answered while a large body still comes, and nobody sends on then.
    read_first = """internal;
            client_body_buffer_size 66m; proxy_pass_request_body off; proxy_set_header Content-Length "";
            proxy_http_version 1.1; proxy_set_header Connection "";"""
    return f"""
    map $content_length $large {{ default 0; "~^[0-9][0-9][0-9][0-9][0-9]" 1; }}
    upstream answers {{ server unix:{folder}/answers; keepalive 64; }}
    open_file_cache max=100 inactive=1h;
    open_file_cache_valid 1h;
    server {{
        listen {url.removeprefix("http://")} backlog=1024;
        etag off;
{headers}
        location = /livez {{ return 200; }}
        location = /v1/chat/completions {{
            if ($large) {{ rewrite ^ /read-first/chat last; }}
            return 200 {_word(replies["chat"])};
        }}
        location = /v1/responses {{ return 200 {_word(replies["responses"])}; }}
        location = /v1/embeddings {{ error_page 405 =200 /embeddings.json; return 405; }}
        location = /embeddings.json {{ internal; alias {folder}/embeddings.json; }}
        location = /v1/files {{ rewrite ^ /read-first/files last; }}
        location /read-first/ {{
            {read_first}
            proxy_pass http://answers/;
        }}
        location ~ ^/v1/files/[^/]+/content$ {{ default_type application/octet-stream; alias {folder}/content; }}
    }}
    server {{
        listen unix:{folder}/answers;
        location = /chat {{ return 200 {_word(replies["chat"])}; }}
        location = /files {{ return 200 {_word(replies["files"])}; }}
    }}"""


def _with_numbers(reply: bytes) -> bytes:
    """The reply with as many numbers as the service's smaller model gives."""
    value = json.loads(reply)
    numbers = [round(((index * 7919) % 20011) / 200110 - 0.05, 8) for index in range(EMBEDDING_FLOATS)]
    value["data"] = [{**value["data"][0], "embedding": numbers}]
    return json.dumps(value, separators=(",", ":")).encode()


def _word(reply: bytes) -> str:
    """A reply as one word of nginx's configuration."""
    text = reply.decode()
    if len(reply) > _MAX_INLINE_BYTES or "$" in text:
        raise ValueError("must be a short reply without a dollar sign; nginx would take that for a variable.")
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
